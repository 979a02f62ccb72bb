"""The viewer in a notebook: a frame that shows a page of a server in this process."""

import html
import itertools
import threading
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from attrs import evolve, frozen
from PIL import Image

from liif_core.images import from_picture, picture_from_array, picture_from_pillow
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import pick_device
from liif_core.model.tile_plan import default_memory
from liif_core.models.choosing import choose
from liif_core.registry.discovery import discover
from liif_core.sizes import memory_bytes
from liif_core.view.gallery import MODELS, Entry, Gallery, NamedModel
from liif_core.view.opening import entry_of
from liif_core.view.running import Running, start
from liif_core.view.server import Server

_lock = threading.Lock()
_running: list[Running] = []  # the server of this process, once there is one
_numbers = itertools.count(1)


@frozen
class View:
    """An image in the viewer. A notebook shows it as a frame; ``url`` opens it in a browser."""

    url: str
    height: int

    def _repr_html_(self) -> str:
        address = html.escape(self.url, quote=True)
        return (
            f'<iframe src="{address}" title="Viewer of a continuous image" allow="fullscreen" '
            f'style="width: 100%; height: {self.height}px; border: 0"></iframe>'
        )


def show(image: Any, model: Any, zoom: float, memory: int | str | None, height: int) -> View:
    """What ``liif_core.view.show`` documents."""
    if not isinstance(zoom, (int, float)) or isinstance(zoom, bool) or not 1 <= zoom <= 1024:
        raise ValueError(f"zoom: expected a number from 1 to 1024, got {zoom!r}")
    limit = default_memory(pick_device("cpu")) if memory is None else memory_bytes(memory)
    entry = _entry(image, model, limit)
    with _lock:
        if not _running:
            _running.append(start(Server(Gallery.within(limit, {}, zoom))))
        running = _running[0]
        running.server.gallery.entries[entry.id] = evolve(entry, zoom=zoom)
    return View(f"{running.url}#image={quote(entry.id, safe='')}", height)


def _entry(image: Any, model: Any, memory: int) -> Entry:
    name, number = "image", next(_numbers)
    if isinstance(image, (str, PathLike)):
        path = Path(image)
        return entry_of(f"{path.name} ({number})", path, _models(model, path), memory)
    if isinstance(image, Image.Image):
        picture = picture_from_pillow(image)
    elif isinstance(image, np.ndarray):
        picture = picture_from_array(image)
    else:
        raise TypeError(f"image: expected a path, a PIL image or a numpy array, got {type(image).__name__}")
    return Entry(f"{name} {number}", lambda: from_picture(picture), _models(model, None), picture.notes)


def _models(model: Any, path: Path | None) -> list[NamedModel]:
    wanted = list(model) if isinstance(model, (list, tuple)) else [model]
    if not 1 <= len(wanted) <= len(MODELS):
        raise ValueError(f"model: expected one model or two, got {len(wanted)}")
    return [_named(each, path, number) for number, each in enumerate(wanted, 1)]


def _named(model: Any, path: Path | None, number: int) -> NamedModel:
    if isinstance(model, ContinuousModel):
        name = model.loaded_from or f"model {number}"
        return NamedModel(Path(name).name, model.eval())
    if model is not None and not isinstance(model, (str, PathLike)):
        raise TypeError(f"model: expected a model, a path or a name, got {type(model).__name__}")
    choice = choose([path or Path("image.png")], None if model is None else Path(model), None, discover())
    [(name, loaded)] = choice.load(pick_device("auto")).items()
    return NamedModel(Path(name).name, loaded)
