"""Building blocks for plugins: linear layers, convolutions, nearest codes, waves, threads, a check of conditions."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from liif_core.model.convolution import fused_conv
from liif_core.model.geometry import mirror_padded
from liif_core.model.linear import Activation, float32_linear, fused_linear, linear
from liif_core.model.threads import on_threads
from liif_core.model.waves import fourier_block, fourier_features, phases, y_then_x

__all__ = [
    "Activation",
    "expect_conditions",
    "float32_linear",
    "fourier_block",
    "fourier_features",
    "fused_conv",
    "fused_linear",
    "linear",
    "mirror_padded",
    "nearest_code",
    "on_threads",
    "phases",
    "y_then_x",
]

_BORDER = 1e-6  # coordinates are clamped to the image less this, as in LIIF's published code


def expect_conditions(given: Mapping[str, int], **expected: int) -> None:
    """Check the conditions that a decoder is built with, name -> width, against those that it uses.

    For example, ``expect_conditions(conditions, coordinate=2, cell=2)``. Raises ValueError that names each difference.
    """
    wrong = [f"{name!r} is {given[name]} wide" for name, width in expected.items() if given.get(name, width) != width]
    wrong += [f"{name!r} would have no effect" for name in given if name not in expected]
    if wrong:
        wanted = ", ".join(f"{name!r} of width {width}" for name, width in expected.items())
        raise ValueError(f"conditions: expected {wanted}; {', '.join(wrong)}")


def nearest_code(position: Tensor, codes: int, ties: Literal["even", "away"] = "even") -> tuple[Tensor, Tensor]:
    """The latent code nearest to each position along one axis: its index, int64, and its own position.

    ``position`` holds coordinates in [-1, 1], float32; positions outside are clamped. ``codes`` is the number of codes
    along the axis. A position exactly between two codes gets the one with the even index, or, with ``ties="away"``, the
    one with the larger index.
    """
    if ties == "away":
        index = (position / 2 * codes + (codes - 1) / 2 + 0.5).floor()
    else:
        inside = position.clamp(-1 + _BORDER, 1 - _BORDER)
        index = (((inside + 1) * codes - 1) / 2).round()
    index = index.clamp(0, codes - 1)
    return index.long(), (-1 + 1 / codes) + (2 / codes) * index
