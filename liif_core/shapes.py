"""Tensor annotations that state shapes: ``Float[Tensor, "B c h w"]``.

The names are those of jaxtyping. The tests check them at run time, with jaxtyping and beartype. Where jaxtyping is not
installed, ``Float[Tensor, ...]`` means ``Tensor``, so that nothing has to be installed to use a model.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Shaped
else:
    try:
        from jaxtyping import Float, Int, Shaped
    except ImportError:

        class Shaped:
            """A tensor of any type; the shape is for the reader."""

            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Float = Int = Shaped

__all__ = ["Float", "Int", "Shaped"]
