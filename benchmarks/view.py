"""Measure ``liif view``: times from the request to the answer, memory, and many clients at once.

    python benchmarks/view.py [--checkpoint FILE] [--clients 20] [--seconds 60] [--memory 4GB]

A server runs in a process of its own, over a photograph of 1,024 x 768 pixels (scikit-image's "coffee", enlarged),
with EDSR-baseline and LIIF's decoder, then with LM-LIIF's, both with random weights, and with the included model
"clean". Every time is that of a whole HTTP request on this machine. Tiles are PNG files of 256 x 256 pixels at zoom 4,
which show 64 x 64 pixels of the photograph.

"Preview" is the first tile that Chromium draws in a window of 1,280 x 800 pixels. The model's first tile is asked for
right then, while the photograph is encoded in the background. Then
``--clients`` clients, each with its own connection, ask for tiles anywhere at zoom 4 to 16 for ``--seconds``. Their
waits are those for tiles that were not in the cache.
"""

import argparse
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import torch
from memory import resident
from PIL import Image
from skimage import data

import liif_core
from liif_core.experiment.toml_file import model_from_table
from liif_core.training.checkpoint import Checkpoint, save_checkpoint

BOTH = [{"use": "coordinate"}, {"use": "cell"}]
TABLES = {
    name: {
        "encoder": {"use": "edsr"},
        "features": {"use": "unfold"},
        "sampling": {"use": "local-ensemble"},
        "conditioning": BOTH,
        "decoder": {"use": decoder},
    }
    for name, decoder in (("edsr-baseline-liif", "mlp"), ("edsr-baseline-lm-liif", "lm-liif"))
}
ZOOM = 16  # of the server
DRAWN = """
const draw = CanvasRenderingContext2D.prototype.drawImage;
CanvasRenderingContext2D.prototype.drawImage = function (...given) {
    window.drawn ??= performance.now();
    return draw.apply(this, given);
};
"""  # notes when the first tile is drawn
WIDTH, HEIGHT = 1024, 768


def random_checkpoint(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    model = liif_core.build_model(model_from_table(TABLES[name], liif_core.discover(), name))
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, Checkpoint(model.state_dict(), {"name": name, "model": TABLES[name]}))
    return path


class Viewer:
    """``liif view`` in a process of its own."""

    def __init__(self, photograph: Path, model: str, memory: str):
        command = [
            *(sys.executable, "-m", "liif_core", "view", photograph, "--checkpoint", model),
            *("--no-browser", "--port", "0", "--memory", memory, "--zoom", str(ZOOM)),
        ]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://\S+/", line):
                self.url = found[0]
                break
        self.client = httpx.Client(base_url=self.url, timeout=600)
        self.name = photograph.name
        self.at_first = self.memory()

    def seconds(self, path: str) -> float:
        started = time.perf_counter()
        self.client.get(path).raise_for_status()
        return time.perf_counter() - started

    def memory(self) -> int:
        return resident("VmRSS", self.process.pid)

    def state(self) -> dict[str, float]:
        return self.client.get(f"api/images/{self.name}").json()["layers"]["model"]

    def tile(self, layer: str, zoom: int, left: int, top: int) -> str:
        """The path of a tile; ``left`` and ``top`` count tiles at this zoom."""
        side = 256 * ZOOM // zoom
        x, y = left * side, top * side
        width, height = min(side, WIDTH * ZOOM - x), min(side, HEIGHT * ZOOM - y)
        size = f"{-(-width * zoom // ZOOM)},{-(-height * zoom // ZOOM)}"
        return f"iiif/{layer}/{self.name}/{x},{y},{width},{height}/{size}/0/default.png"

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def places(zoom: int) -> list[tuple[int, int]]:
    return [(x, y) for x in range(WIDTH * zoom // 256) for y in range(HEIGHT * zoom // 256)]


def alone(viewer: Viewer) -> None:
    """One client: preview, encoding, tiles, cached tiles."""
    begun = time.perf_counter()
    print(preview(viewer))
    first = viewer.seconds(viewer.tile("model", 4, 8, 6))
    since = time.perf_counter() - begun
    while (state := viewer.state())["state"] in ("waiting", "encoding"):
        time.sleep(0.1)
    print(f"first model tile {since:.2f} s after the page was opened, {first:.2f} s after it was asked for")
    print(f"encoded after {time.perf_counter() - begun:.1f} s ({state['state']})")
    chosen = random.Random(0).sample(places(4), 24)
    times = [viewer.seconds(viewer.tile("model", 4, *place)) for place in chosen]
    again = [viewer.seconds(viewer.tile("model", 4, *place)) for place in chosen]
    print(f"tile at zoom 4: median {1000 * statistics.median(times):.0f} ms, most {1000 * max(times):.0f} ms")
    print(f"cached tile: median {1000 * statistics.median(again):.1f} ms, most {1000 * max(again):.1f} ms")


def preview(viewer: Viewer) -> str:
    """How long a browser takes to show a picture; without one, how long its requests take."""
    if browser := shutil.which("chromium"):
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            page = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page()
            page.set_viewport_size({"width": 1280, "height": 800})
            page.add_init_script(DRAWN)
            page.goto(viewer.url)
            page.wait_for_function("() => window.drawn")
            drawn, loaded = page.evaluate(
                "() => [window.drawn, performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart]"
            )
            return f"preview drawn {drawn:.0f} ms after the request of the page, which was loaded after {loaded:.0f} ms"
    viewer.state()
    seconds = sum(viewer.seconds(viewer.tile("bicubic", 1, *place)) for place in places(1))
    return f"requests of the preview's tiles: {1000 * seconds:.0f} ms"


def panning(viewer: Viewer, number: int, end: float, waits: list[float], errors: list[str]) -> None:
    choose = random.Random(number)
    client = httpx.Client(base_url=viewer.url, timeout=600)
    while time.perf_counter() < end:
        zoom = choose.choice((4, 8, 16))
        x, y = choose.choice(places(zoom))
        started = time.perf_counter()
        answer = client.get(viewer.tile("model", zoom, x, y))
        if "hit" not in answer.headers.get("server-timing", ""):
            waits.append(time.perf_counter() - started)
        if answer.status_code != 200:
            errors.append(answer.text)


def together(viewer: Viewer, clients: int, seconds: float) -> None:
    """Many clients."""
    waits: list[list[float]] = [[] for _ in range(clients)]
    errors: list[str] = []
    end, held = time.perf_counter() + seconds, [viewer.memory()]
    threads = [
        threading.Thread(target=panning, args=(viewer, number, end, own, errors)) for number, own in enumerate(waits)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(1)
        held.append(viewer.memory())
    each = [statistics.median(own) for own in waits]
    every = sorted(wait for own in waits for wait in own)
    middle = statistics.median(every)
    third = max(1, len(held) // 3)
    print(f"{clients} clients for {seconds:.0f} s: {len(every)} tiles rendered, {len(errors)} errors")
    print(f"wait: median {middle:.2f} s, most {every[-1]:.2f} s ({every[-1] / middle:.1f} times)")
    print(f"medians of the clients: {min(each):.2f} to {max(each):.2f} s")
    most = [max(part) / 1e6 for part in (held[:third], held[-third:])]
    print(f"memory: {viewer.at_first / 1e6:.0f} MB at first, {held[0] / 1e6:.0f} MB before the clients come")
    print(f"at most {most[0]:.0f} MB in their first third, {most[1]:.0f} MB in their last")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="measure this model in place of the three")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--memory", default="4GB")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photograph = Path(folder, "photograph.png")
        Image.fromarray(data.coffee()).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(photograph)
        models = [options.checkpoint] if options.checkpoint else [*TABLES, "clean"]
        for model in models:
            chosen = random_checkpoint(model, Path(folder)) if model in TABLES else model
            print(f"\n{model}, --memory {options.memory}, torch {torch.__version__}, {torch.get_num_threads()} threads")
            viewer = Viewer(photograph, str(chosen), options.memory)
            try:
                alone(viewer)
                if options.clients:
                    together(viewer, options.clients, options.seconds)
            finally:
                viewer.end()


if __name__ == "__main__":
    main()
