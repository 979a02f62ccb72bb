"""The pictures that are viewed: each opened when it is first looked at, with the layers that show it."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from attrs import Factory, define, evolve, frozen
from PIL import Image

from liif_core.errors import UserError
from liif_core.images import Source, from_planes
from liif_core.model.continuous import ContinuousModel
from liif_core.model.picture_batch import PictureBatch
from liif_core.sizes import Region, Size
from liif_core.view.blocks import EncodedPicture
from liif_core.view.byte_cache import ByteCache
from liif_core.view.iiif import ImageRequest
from liif_core.view.pixels import encoded, interpolated, shrinks
from liif_core.view.work_queue import Steps

INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "nearest": Image.Resampling.NEAREST}
MODELS = ("model", "model-2")  # the names of the layers of models


@frozen
class NamedModel:
    """A model, and the name that the page shows."""

    name: str
    model: ContinuousModel


@frozen(eq=False)
class Entry:
    """A picture that can be viewed: its identifier, how it is opened, and the models that show it.

    ``open`` raises UserError where the picture cannot be read. ``notes`` are sentences for the user.
    """

    id: str
    open: Callable[[], Source]
    models: Sequence[NamedModel]
    notes: tuple[str, ...] = ()
    problem: str | None = None  # why it cannot be opened, if that is known
    zoom: float | None = None  # how many times it can be enlarged, if it is another number than that of the gallery


@define(eq=False)
class ViewedPicture:
    """An open picture, with the images that models make of it. ``full`` is its virtual size, (height, width)."""

    entry: Entry
    source: Source
    full: Size
    encoded: dict[str, EncodedPicture]
    center: tuple[float, float]  # (y, x) in pixels: where it was looked at last

    def region(self, request: ImageRequest) -> Region:
        """The region of a request as (top, left, bottom, right) in pixels of the picture."""
        left, top, width, height = request.region
        down, across = (side / whole for side, whole in zip(self.source.size, self.full))
        return top * down, left * across, (top + height) * down, (left + width) * across

    def interpolated(self, request: ImageRequest, layer: str) -> bytes:
        """The file that a request asks for, by interpolation."""
        method = INTERPOLATIONS.get(layer, Image.Resampling.LANCZOS)
        pixels = interpolated(self.source, request.size, self.region(request), method)
        return encoded(pixels, request, self.source.metadata.icc)

    def needs_model(self, request: ImageRequest, layer: str) -> bool:
        """Whether the model is asked: not where the picture has more pixels than the answer, on both axes."""
        return layer in self.encoded and not shrinks(request.size, self.region(request))

    def rendered(self, request: ImageRequest, layer: str) -> Steps:
        """The steps in which a model renders the file that a request asks for."""
        picture, region = self.encoded[layer], self.region(request)
        self.center = (region[0] + region[2]) / 2, (region[1] + region[3]) / 2
        colors = yield from picture.render(request.size, region)
        pixels = from_planes(*picture.batch.apart(colors), "uint8", self.source.span)
        return encoded(pixels, request, self.source.metadata.icc)

    def as_json(self) -> dict[str, Any]:
        """What the page is told."""
        height, width = self.source.size
        return {
            "id": self.entry.id,
            "name": self.entry.id,
            "width": width,
            "height": height,
            "full_width": self.full[1],
            "full_height": self.full[0],
            "alpha": self.has_alpha,
            "notes": [*self.entry.notes, *self.source.notes],
            "layers": {name: self._layer(name) for name in self.encoded},
        }

    @property
    def has_alpha(self) -> bool:
        """Whether answers have alpha."""
        return self.source.alpha_range is not None and self.source.metadata.nodata is None

    def _layer(self, name: str) -> dict[str, Any]:
        encoded = self.encoded[name]
        progress, trained = encoded.progress, encoded.model.trained_scale
        notes = []
        if trained is not None:
            notes.append(f"trained at scales {trained[0]:g} to {trained[1]:g}")
        if encoded.approximate:
            notes.append("at large scales, means over all pixels are estimated from about a million of them")
        return {
            "name": self.entry.models[MODELS.index(name)].name,
            "state": encoded.state,
            "done": progress.done / progress.blocks if progress.blocks else 0.0,
            "seconds": round(progress.seconds, 2),
            "note": "; ".join(notes),
            "error": progress.error,
        }


@define(eq=False)
class Gallery:
    """All pictures, at ``zoom`` times their size.

    ``cache`` holds encoded blocks and finished tiles, ``opened`` the pixels of open pictures; computing takes about
    ``memory`` bytes.
    """

    entries: dict[str, Entry]
    zoom: float
    cache: ByteCache
    opened: ByteCache
    memory: int
    current: ViewedPicture | None = None  # the one that is encoded in the background
    _latest: ViewedPicture | None = None
    _lock: threading.Lock = Factory(threading.Lock)

    @classmethod
    def within(cls, memory: int, entries: dict[str, Entry], zoom: float) -> "Gallery":
        """About ``memory`` bytes in all: 5/8 for the cache, 1/8 for open pictures, and 2/8 for computing."""
        return cls(entries, zoom, ByteCache(memory * 5 // 8), ByteCache(memory // 8), memory // 4)

    def picture(self, name: str) -> ViewedPicture:
        """The picture, which is opened if it is not. Raises UserError where it cannot be read, KeyError if unknown."""
        entry = self.entries[name]
        with self._lock:  # two requests do not open it twice
            for held in (self.current, self._latest):  # these may be too large to be kept with others
                if held is not None and held.entry is entry:
                    return held
            picture: ViewedPicture | None = self.opened.get(name)
            if picture is None:
                picture = self._open(entry)
                height, width = picture.source.size
                samples = height * width * (picture.source.channels + 1)
                self.opened.put(name, picture, samples * np.dtype(picture.source.depth).itemsize)
            self._latest = picture
            return picture

    def background(self) -> Steps | None:
        """Work for the time in which nobody waits: to encode what is left of the current picture."""
        picture = self.current
        if picture is None:
            return None
        for by_model in picture.encoded.values():
            if by_model.state in ("waiting", "encoding"):
                return self._while_current(picture, by_model.encode_all(picture.center))
        return None

    def _while_current(self, picture: ViewedPicture, steps: Steps) -> Steps:
        for _ in steps:
            if self.current is not picture:
                return
            yield

    def _open(self, entry: Entry) -> ViewedPicture:
        if entry.problem is not None:
            raise UserError(entry.problem)
        source = _for_threads(entry.open())
        height, width = source.size
        zoom = entry.zoom or self.zoom
        full = max(1, math.floor(height * zoom + 0.5)), max(1, math.floor(width * zoom + 0.5))
        encoded = {
            layer: EncodedPicture(
                (entry.id, layer), each.model, PictureBatch(source, each.model.channels), self.cache, self.memory
            )
            for layer, each in zip(MODELS, entry.models)
        }
        return ViewedPicture(entry, source, full, encoded, (height / 2, width / 2))


def _for_threads(source: Source) -> Source:
    """The same picture, which one thread reads at a time."""
    lock = threading.Lock()

    def part(rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray | None]:
        with lock:
            return source.part(rows, columns)

    return evolve(source, part=part)
