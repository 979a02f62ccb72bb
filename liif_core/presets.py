"""Named evaluation protocols: how LR images are made, what is rendered, and what of two images is compared.

This is the only statement of their names and rules. "benchmark" and "div2k" are those of LIIF's published evaluation
(Chen, Liu and Wang, CVPR 2021: DIV2K in table 1, the benchmark sets in table 2), which follow EDSR's; the others are
those of later papers. Predictions are clamped to [0, 1].

Published border widths cover integer scales only. The rule here, for any scale: on each axis, that axis's scale rounded
up, plus the protocol's ``margin``.
"""

import math
from types import MappingProxyType
from typing import Literal

from attrs import evolve, frozen

from liif_core.sizes import Scale, Size

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
    version: int = 1  # raised when a rule changes, so that results of before are told apart

    def border(self, scale: Scale) -> Size:
        """Rows and columns that are left out at each edge."""
        if not self.shave:
            return 0, 0
        rows, columns = (math.ceil(factor) + self.margin for factor in (scale.y, scale.x))
        return (rows, columns) if self.widest is None else (min(rows, self.widest), min(columns, self.widest))


_BENCHMARK = EvalProtocol(True, True, 0, "Y channel, without a border as wide as the scale")
_DIV2K = EvalProtocol(False, True, 6, "RGB, without a border as wide as the scale + 6")


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
        "rgb": EvalProtocol(False, False, 0, "RGB, whole images"),
        "lte": _with(_BENCHMARK, _LTE, max_scale=4.0),
        "lte-div2k": _with(_DIV2K, _LTE, max_scale=4.0),
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
        "fair": EvalProtocol(
            False, True, 0, f"RGB of 8 bits, without a border as wide as the scale; {_MATLAB}", low="matlab",
            rounded=True, interval=True,
        ),
        "fair-y": EvalProtocol(
            True, True, 0, f"{_Y8}; {_MATLAB}", low="matlab", rounded=True, interval=True
        ),
    }
)  # fmt: skip
