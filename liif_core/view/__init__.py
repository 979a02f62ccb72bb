"""The viewer of continuous images: a page in which one zooms into a picture past its pixels (``liif view``).

A IIIF Image API 3.0 server of an image that is larger than its pixels by ``zoom``, with one layer for each model and
each interpolation. Needs the packages of ``pip install "liif-core[view]"``.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from liif_core.errors import UserError

if TYPE_CHECKING:
    from liif_core.view.notebook import View

_NEEDED = ("starlette", "uvicorn")


def check_packages() -> None:
    """Raises UserError where a package that the viewer needs is not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(
            f"the viewer needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; "
            'install them with: pip install "liif-core[view]"'
        )


def show(
    image: Any, model: Any = None, *, zoom: float = 16, memory: int | str | None = None, height: int = 600
) -> "View":
    """Show the viewer of an image in a notebook, in a frame that is ``height`` pixels high.

    The server runs in this process, and ends with it; all calls share one. The frame shows a page of 127.0.0.1: the
    browser has to be on the same machine, or its port be forwarded.

    Args:
        image: a path, a PIL image, or a numpy array as of ``ContinuousModel.upscale``.
        model: a model, or the path of a checkpoint, or the name of a model; or a list of two, to compare. Default: the
            included model that fits the image.
        zoom: how many times the image can be enlarged.
        memory: about how much memory the server may use, in bytes or as text such as "2GB"; of the first call.

    Returns:
        An object that a notebook shows as the viewer; its ``url`` can be opened in any browser.

    Raises UserError for a file or model that cannot be read, or where packages are missing; TypeError and ValueError
    that name the argument.
    """
    check_packages()
    from liif_core.view.notebook import show

    return show(image, model, zoom, memory, height)
