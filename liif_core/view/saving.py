"""Saving a region of a picture: rendered as ``liif upscale`` renders it, with the metadata, into a temporary folder."""

import secrets
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from attrs import define, frozen

from liif_core.errors import UserError
from liif_core.images import Target, check_output, open_writer
from liif_core.model.upscaler import PictureRenderer
from liif_core.sizes import OutputSize
from liif_core.view.gallery import ViewedPicture
from liif_core.view.iiif import BadRequest
from liif_core.view.work_queue import Steps, Work, WorkQueue

FORMATS = {"png": "image/png", "tif": "image/tiff"}
MAX_SIDE = 100_000  # pixels
_KEPT = 20  # saves that are finished; older ones are removed


@frozen
class SaveRequest:
    """What to save: a layer of a picture, and how large."""

    image: str
    layer: str
    output: OutputSize
    format: str

    @classmethod
    def of(cls, given: Any) -> "SaveRequest":
        """From the JSON of a request. Raises BadRequest that names all that is wrong."""
        if not isinstance(given, dict):
            raise BadRequest("expected an object with image, layer, region, width, height and format")
        problems = [
            f"{key}: expected a text, got {given.get(key)!r}"
            for key in ("image", "layer")
            if not isinstance(given.get(key), str)
        ]
        if given.get("format") not in FORMATS:
            problems.append(f"format: expected one of {', '.join(FORMATS)}, got {given.get('format')!r}")
        output = None
        try:
            output = OutputSize.of(width=given.get("width"), height=given.get("height"), region=given.get("region"))
        except (TypeError, ValueError) as error:
            problems.append(str(error))
        sides = [given.get(side) for side in ("width", "height")]
        if any(isinstance(side, int) and side > MAX_SIDE for side in sides):
            problems.append(f"width, height: expected at most {MAX_SIDE:,} pixels")
        if problems or output is None:
            raise BadRequest("; ".join(problems))
        return cls(given["image"], given["layer"], output, given["format"])


@define(eq=False)
class Save:
    """A save, from its request until its file is removed."""

    id: str
    name: str
    path: Path
    media_type: str
    total: int  # pixels
    done: int = 0
    state: str = "waiting"  # then "rendering", and "done", "failed" or "cancelled"
    error: str | None = None
    notes: tuple[str, ...] = ()
    work: Work | None = None

    def as_json(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            "id": self.id,
            "state": self.state,
            "done": min(1.0, self.done / self.total),
            "error": self.error,
            "notes": list(self.notes),
            "name": self.name,
        }


class Saves:
    """All saves of a server. Each takes about ``memory`` bytes; files lie in a folder that ``close`` removes."""

    def __init__(self, queue: WorkQueue, memory: int):
        self.queue, self.memory = queue, memory
        self._folder = tempfile.TemporaryDirectory(prefix="liif-view-")
        self._saves: dict[str, Save] = {}

    def start(self, picture: ViewedPicture, request: SaveRequest) -> Save:
        """Begin to render. Raises BadRequest where the picture does not have the region, or no model the layer."""
        encoded = picture.encoded.get(request.layer)
        if encoded is None:
            raise BadRequest(f"layer {request.layer!r}: expected one of {', '.join(picture.encoded)}")
        number = secrets.token_urlsafe(12)
        path = Path(self._folder.name, f"{number}.{request.format}")
        try:
            renderer = PictureRenderer(encoded.model, picture.source, request.output)
            target = check_output(path, renderer.size, renderer.channels, picture.source.depth, renderer.metadata)
        except (UserError, ValueError) as error:
            raise BadRequest(str(error).replace(str(path), "the file")) from None
        name = f"{PurePosixPath(request.image).stem}-{renderer.size[1]}x{renderer.size[0]}.{request.format}"
        save = Save(number, name, path, FORMATS[request.format], renderer.total_pixels)
        self._forget_old()
        self._saves[number] = save
        save.work = self.queue.submit(f"save {number}", self._steps(save, picture, renderer, target))
        return save

    def get(self, number: str) -> Save | None:
        """The save with this id."""
        return self._saves.get(number)

    def cancel(self, save: Save) -> None:
        """End it, or remove its file if it is done."""
        if save.work is not None:
            self.queue.cancel(save.work)
        if save.state == "done":
            save.path.unlink(missing_ok=True)
        save.state = "cancelled"

    def close(self) -> None:
        """Remove all files."""
        self._folder.cleanup()

    def _steps(self, save: Save, picture: ViewedPicture, renderer: PictureRenderer, target: Target) -> Steps:
        save.state = "rendering"

        def add(pixels: int) -> None:
            save.done += pixels

        try:
            plan = renderer.plan(self.memory)
            with open_writer(target) as writer:
                for rows in renderer.rows(plan, target.depth, on_progress=add):
                    writer.write_rows(rows)
                    yield
            dropped = [f"dropped {change}" for change in target.account.dropped]
            notes = (*picture.source.notes, *target.notes, *renderer.conversions(), *renderer.notes(plan), *dropped)
            save.notes, save.state = tuple(dict.fromkeys(notes)), "done"
        except GeneratorExit:
            save.state = "cancelled"
            raise
        except (UserError, OSError, RuntimeError, MemoryError) as error:
            save.error, save.state = str(error).replace(str(save.path), save.name) or type(error).__name__, "failed"

    def _forget_old(self) -> None:
        finished = [save for save in self._saves.values() if save.state not in ("waiting", "rendering")]
        for save in finished[:-_KEPT]:
            save.path.unlink(missing_ok=True)
            del self._saves[save.id]
