"""The picture of a training: its loss, the PSNR of its validations, and its learning rate."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

_PLOTS = (  # title, and name and label of each line
    ("L1 loss", (("loss", ""),)),
    ("validation PSNR (dB)", (("psnr", "model"), ("bicubic_psnr", "bicubic"))),
    ("learning rate", (("rate", ""),)),
)


def curves_png(entries: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG file of the entries of a log, over steps. Raises what matplotlib raises."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, lines) in zip(figure.subplots(1, len(_PLOTS)), _PLOTS):
        for name, label in lines:
            points = [(entry["step"], entry[name]) for entry in entries if isinstance(entry.get(name), int | float)]
            dashed, few = name == "bicubic_psnr", len(points) < 30
            marker = "o" if few and not dashed else None
            color = "gray" if dashed else None
            axes.plot(
                *zip(*points) if points else ([], []), label=label, marker=marker, markersize=3, color=color,
                linestyle="--" if dashed else "-",
            )  # fmt: skip
        if len(lines) > 1:
            axes.legend()
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, dpi=120)
    return file.getvalue()
