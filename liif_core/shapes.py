"""Tensor annotations that state shapes: ``Float[Tensor, "B c h w"]``.

The names and the notation are those of jaxtyping. The tests check shapes at run time, with jaxtyping and beartype. They
import jaxtyping before this module. Otherwise ``Float[Tensor, ...]`` means ``Tensor``, so that using a model neither
requires nor loads jaxtyping.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Float, Int, Shaped
else:

    class Shaped:
        """A tensor of any type; the shape is for the reader."""

        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            return item[0]

    Float = Int = Shaped

__all__ = ["Float", "Int", "Shaped"]
