"""Results: the scores of a model under a preset, with all that is needed to compare them, as a line of JSON."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import frozen

from liif_core.evaluation.bootstrap import LEVEL, RESAMPLES, Interval, mean_interval
from liif_core.evaluation.circumstances import Circumstances
from liif_core.evaluation.scores import BESIDES_OF_BOTH, Score, strict_json
from liif_core.presets import LOW, PROTOCOLS
from liif_core.sizes import Scale
from liif_core.version import __version__

FORMAT, VERSION = "liif-core result", 1


@frozen(kw_only=True)
class Result:
    """One model under one preset, at one scale, on one data set. PSNR in dB, math.inf where images are equal."""

    date: str  # ISO 8601, UTC
    model: str  # what it is called
    description: str  # its parts
    weights: str  # SHA-256; empty: it has none, such as interpolation
    preset: str
    facts: Mapping[str, Any]  # of the preset, with its version
    scale: Scale
    data: str  # name of the folder
    data_sha256: str
    given_low: int  # images whose LR came with the data
    images: Mapping[str, Mapping[str, float]]  # name -> psnr, ssim, lpips, each of bicubic, encode_s, decode_s
    psnr: float
    bicubic_psnr: float
    ssim: float | None = None
    bicubic_ssim: float | None = None
    lpips: float | None = None
    bicubic_lpips: float | None = None
    interval: Interval | None = None  # of the PSNR, where the preset asks for it
    precision: str = "float32"
    ensemble: int = 1  # orientations that --ensemble asked for, besides those of the preset
    machine: Mapping[str, Any]
    multiply_adds: float | None = None  # for each output pixel
    peak_memory: int | None = None  # bytes beyond the weights: of tensors on a GPU, of the process on a CPU
    parameters: int | None = None
    liif_core: str  # version
    commit: str = ""  # of the checkout; empty: unknown

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Mean over images of encoding and of decoding."""
        times = [(image.get("encode_s"), image.get("decode_s")) for image in self.images.values()]
        if not times or any(part is None for pair in times for part in pair):
            return None
        return sum(e for e, _ in times if e) / len(times), sum(d for _, d in times if d) / len(times)


@frozen
class Subject:
    """What was measured: a model, or an interpolation."""

    name: str
    description: str  # its parts
    weights: str = ""  # SHA-256
    parameters: int | None = None
    ensemble: int = 1  # orientations whose mean it is


def result_of(
    score: Score,
    subject: Subject,
    circumstances: Circumstances,
    multiply_adds: float | None = None,
    peak_memory: int | None = None,
) -> Result:
    """The result that a score is, dated now, with a confidence interval where its preset asks for one."""
    images: dict[str, dict[str, float]] = {}
    for name, psnr in score.images.items():
        images[name] = {"psnr": psnr, "bicubic_psnr": score.bicubic_images[name]}
        for measure in BESIDES_OF_BOTH:
            if found := getattr(score, f"{measure}_images"):
                images[name][measure] = found[name]
        if score.seconds:
            images[name] |= dict(zip(("encode_s", "decode_s"), score.seconds[name]))
    asked = PROTOCOLS[score.protocol].interval
    return Result(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        model=subject.name,
        description=subject.description,
        weights=subject.weights,
        preset=score.protocol,
        facts=preset_facts(score.protocol),
        scale=score.scale,
        data=score.dataset,
        data_sha256=circumstances.data_sha256,
        given_low=score.given_low,
        images=images,
        psnr=score.psnr,
        bicubic_psnr=score.bicubic_psnr,
        ssim=score.ssim,
        bicubic_ssim=score.bicubic_ssim,
        lpips=score.lpips,
        bicubic_lpips=score.bicubic_lpips,
        interval=mean_interval(list(score.images.values())) if asked else None,
        precision=circumstances.precision,
        ensemble=subject.ensemble,
        machine=circumstances.machine,
        multiply_adds=multiply_adds,
        peak_memory=peak_memory,
        parameters=subject.parameters,
        liif_core=__version__,
        commit=circumstances.commit,
    )


def preset_facts(name: str) -> dict[str, Any]:
    """The rules of a preset as plain values."""
    preset = PROTOCOLS[name]
    made = LOW[preset.low]
    low = {"used": f"{made}, where the data has none", "required": "those of the data", "ignored": made}
    border = f"scale rounded up + {preset.margin}" if preset.margin else "scale rounded up"
    return {
        "version": preset.version,
        "lr": low[preset.given_low],
        "channels": "Y" if preset.luma else "all, such as RGB",
        "range": "[0, 1], clamped",
        "border": (border + (f", at most {preset.widest}" if preset.widest else "")) if preset.shave else "none",
        "rounded": "to 8 bits" if preset.rounded else "no",
        "cell": f"at least that of x{preset.max_scale:g}" if preset.max_scale else "that of the scale",
        "ensemble": preset.ensemble,
        "tiles": None if preset.tiles is None else list(preset.tiles),
    }


def result_line(result: Result) -> str:
    """A line of JSON, with a line end."""
    optional = {
        "parameters": result.parameters,
        "multiply_adds_per_pixel": result.multiply_adds,
        "peak_memory": result.peak_memory,
        "commit": result.commit or None,
    }
    mean = {"psnr": result.psnr, "bicubic_psnr": result.bicubic_psnr}
    for measure in BESIDES_OF_BOTH:
        if (found := getattr(result, measure)) is not None:
            mean[measure] = found
    line: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "date": result.date,
        "model": {"name": result.model, "description": result.description, "sha256": result.weights or None},
        "liif_core": result.liif_core,
        **{name: value for name, value in optional.items() if value is not None},
        "preset": {"name": result.preset, **result.facts},
        "scale": result.scale.to_builtin,
        "precision": result.precision,
        "ensemble": result.ensemble,
        "data": {
            "name": result.data,
            "images": len(result.images),
            "sha256": result.data_sha256,
            "given_lr": result.given_low,
        },
        "mean": mean,
        "images": {name: dict(values) for name, values in result.images.items()},
        "machine": dict(result.machine),
    }
    if result.interval is not None:
        line["interval"] = {"psnr": list(result.interval), "level": LEVEL, "resamples": RESAMPLES}
    return strict_json(line, indent=None)
