"""Named evaluation protocols: how LR images are made, what is rendered, and what of two images is compared.

This is the only statement of their names and rules. "benchmark" and "div2k", which "liif-benchmark" and "liif-div2k"
name too, are those of LIIF's published evaluation (Chen, Liu and Wang, CVPR 2021: DIV2K in table 1, the benchmark sets
in table 2), which follow EDSR's; the others are those of later papers and frameworks. Predictions are clamped to
[0, 1].

Published border widths cover integer scales only. The rule here, for any scale: on each axis, that axis's scale rounded
up, plus the protocol's ``margin``.
"""

import math
from collections.abc import Iterable
from types import MappingProxyType
from typing import Literal

from attrs import evolve, frozen

from liif_core.sizes import Scale, Size

ALIASES = {"liif-benchmark": "benchmark", "liif-div2k": "div2k"}  # of protocols, which results may be stamped with
LOW = {"pillow": "PIL bicubic", "matlab": "bicubic like MATLAB's"}  # how LR images are made, for reports


@frozen
class EvalProtocol:
    """How a prediction is made and compared with its target."""

    luma: bool  # RGB is compared by its luma, Y; images of one channel are compared as they are
    shave: bool  # a border, as wide as the scale, is left out
    margin: int  # pixels that the border is wider than that
    description: str  # for reports
    widest: int | None = None  # pixels that the border has at most
    low: Literal["pillow", "matlab"] = "pillow"  # the bicubic filter that makes LR images that no data set brings
    rounded: bool = False  # predictions are rounded to 8 bits
    max_scale: float | None = None  # cells are at least those of this scale
    ensemble: Literal[1, 4, 8] = 1  # orientations whose mean is the prediction
    tiles: tuple[int, int] | None = None  # side and overlap of tiles that are averaged at whole scales up to 4
    interval: bool = False  # results have a confidence interval of the mean, by bootstrap over images
    besides: tuple[Literal["ssim", "lpips"], ...] = ()  # measured besides PSNR, where their libraries are installed
    given_low: Literal["used", "required", "ignored"] = "used"  # LR images that come with the data
    scales: tuple[float, ...] = ()  # of the published tables; evaluated where none are asked for
    version: int = 1  # raised when a rule changes, so that results of before are told apart

    def border(self, scale: Scale) -> Size:
        """Rows and columns that are left out at each edge."""
        if not self.shave:
            return 0, 0
        rows, columns = (math.ceil(factor) + self.margin for factor in (scale.y, scale.x))
        return (rows, columns) if self.widest is None else (min(rows, self.widest), min(columns, self.widest))


_BENCHMARK = EvalProtocol(True, True, 0, "Y channel, without a border as wide as the scale", scales=(2, 3, 4, 6, 8))
_DIV2K = EvalProtocol(
    False, True, 6, "RGB, without a border as wide as the scale + 6", scales=(2, 3, 4, 6, 12, 18, 24, 30)
)
_RGB = EvalProtocol(False, False, 0, "RGB, whole images")
_SHAVED_RGB = EvalProtocol(False, True, 0, "RGB, without a border as wide as the scale")


def own_scales(names: Iterable[str]) -> tuple[Scale, ...]:
    """The scales of the published tables of the protocols of these names, which are the same for all.

    Raises ValueError where a protocol has none, or another one others.
    """
    found = {name: PROTOCOLS[name].scales for name in names}
    if not found:
        raise ValueError("expected at least one")
    without = [name for name, scales in found.items() if not scales]
    if without:
        raise ValueError(f"expected at least one, such as 4: there are no usual scales of {', '.join(without)}")
    if len(set(found.values())) > 1:
        told = "; ".join(f"{name} {', '.join(f'x{scale:g}' for scale in scales)}" for name, scales in found.items())
        raise ValueError(f"expected at least one, since the scales of the protocols' own tables differ ({told})")
    return tuple(Scale.of(scale) for scale in next(iter(found.values())))


def _with(protocol: EvalProtocol, more: str, **changes: object) -> EvalProtocol:
    return evolve(protocol, description=f"{protocol.description}; {more}", **changes)  # type: ignore[arg-type]


_LTE = "cells of scales above 4 are those of 4"
_LINF = "cells of scales above 30 are those of 30"
_Y8 = "Y channel of 8 bits, without a border as wide as the scale"
_MATLAB = "LR by MATLAB's bicubic"
_TILES = "up to x4 the mean of tiles of 192 LR pixels that overlap by 32"
_TURNS = f"{_MATLAB}, the mean over four rotations"
PROTOCOLS = MappingProxyType(
    {
        "benchmark": _BENCHMARK,
        "div2k": _DIV2K,
        **{other: {"benchmark": _BENCHMARK, "div2k": _DIV2K}[name] for other, name in ALIASES.items()},
        "celeba-hq": _with(_RGB, "LR images are those of the data", given_low="required"),
        "rgb": _RGB,
        "lte": _with(_BENCHMARK, _LTE, max_scale=4.0),
        "lte-div2k": _with(_DIV2K, _LTE, max_scale=4.0),
        "srno": _with(_BENCHMARK, _LTE, max_scale=4.0),
        "srno-div2k": _with(_DIV2K, _LTE, max_scale=4.0),
        "linf": _with(_BENCHMARK, _LINF, max_scale=30.0),
        "linf-div2k": _with(_DIV2K, _LINF, max_scale=30.0),
        "thera": EvalProtocol(
            False, True, 0, f"RGB, without a border as wide as the scale; {_TURNS}", low="matlab", ensemble=4
        ),
        "thera-div2k": _with(_DIV2K, _TURNS, low="matlab", ensemble=4),
        "gsasr": EvalProtocol(
            True, True, 0, f"{_Y8}, at most 8; {_MATLAB}", widest=8, low="matlab", rounded=True
        ),
        "ciaosr": EvalProtocol(
            True, True, 0, f"{_Y8}; {_MATLAB}; {_TILES}", low="matlab", rounded=True, tiles=(192, 32)
        ),
        "mmagic": _with(
            _SHAVED_RGB, "LR images are made, not those of the data", given_low="ignored", scales=(2, 3, 4, 6, 18, 30)
        ),
        "inr-assr": _with(_SHAVED_RGB, _LTE, max_scale=4.0, scales=(2, 3, 4, 6, 8, 12)),
        "inr-assr-div2k": _with(_DIV2K, _LTE, max_scale=4.0),
        "fair": EvalProtocol(
            False, True, 0, f"RGB of 8 bits, without a border as wide as the scale; {_MATLAB}", low="matlab",
            rounded=True, interval=True, besides=("ssim", "lpips"),
        ),
        "fair-y": EvalProtocol(
            True, True, 0, f"{_Y8}; {_MATLAB}", low="matlab", rounded=True, interval=True, besides=("ssim",)
        ),
    }
)  # fmt: skip
