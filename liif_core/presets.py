"""Named evaluation protocols: what of two images is compared. The only statement of their names and rules.

They are those of LIIF's published evaluation (Chen, Liu and Wang, CVPR 2021: DIV2K in table 1, the benchmark sets in
table 2), which follow EDSR's. Predictions are clamped to [0, 1] and not rounded.

Published border widths cover integer scales only. The rule here, for any scale: on each axis, that axis's scale rounded
up, plus the protocol's ``margin``.
"""

import math
from types import MappingProxyType

from attrs import frozen

from liif_core.sizes import Scale, Size


@frozen
class EvalProtocol:
    """How a prediction is compared with its target."""

    luma: bool  # RGB is compared by its luma, Y; images of one channel are compared as they are
    shave: bool  # a border, as wide as the scale, is left out
    margin: int  # pixels that the border is wider than that
    description: str  # for reports

    def border(self, scale: Scale) -> Size:
        """Rows and columns that are left out at each edge."""
        if not self.shave:
            return 0, 0
        return math.ceil(scale.y) + self.margin, math.ceil(scale.x) + self.margin


PROTOCOLS = MappingProxyType(
    {
        "benchmark": EvalProtocol(True, True, 0, "Y channel, without a border as wide as the scale"),
        "div2k": EvalProtocol(False, True, 6, "RGB, without a border as wide as the scale + 6"),
        "rgb": EvalProtocol(False, False, 0, "RGB, whole images"),
    }
)
