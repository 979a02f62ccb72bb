"""What an output of ``liif upscale`` says about how it was made, so that a later run knows whether it is done.

It is text in the EXIF tag ProcessingSoftware, so that it stays with the file when that is moved.
"""

import hashlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

from attrs import evolve

from liif_core.errors import one_line
from liif_core.images import Metadata, ifd
from liif_core.sizes import OutputSize

_TAG = 0x000B  # ProcessingSoftware
_MARK = re.compile(rb"liif-core upscale (\{[ -~]{0,4000}?\})\0")
_HEAD, _TAIL = 1 << 16, 1 << 14  # bytes in which it is looked for: formats have it near their start or their end
_NAME = 100  # characters of a model's name that are kept
_SETTINGS = ("region", "frame", "precision", "ensemble", "quality", "lossless")

Mark = dict[str, Any]


def settings_mark(
    output: OutputSize, frame: int | None, model: str, weights: str, precision: str, ensemble: int, encoding: Mark
) -> Mark:
    """What decides how an output looks, besides its input. ``weights`` is a digest of the checkpoint's bytes."""
    mark: Mark = {
        "model": one_line(os.path.basename(model))[-_NAME:],
        "weights": weights,
        "precision": precision,
        **encoding,
    }
    if output.scale is not None:
        mark["scale"] = output.scale.to_builtin
    else:
        mark["size"] = f"{output.width or ''}x{output.height or ''}"
    if output.region is not None:
        mark["region"] = list(output.region)
    if frame is not None:
        mark["frame"] = frame
    if ensemble > 1:
        mark["ensemble"] = ensemble
    return mark


def marked(metadata: Metadata, mark: Mark, source: Path | None) -> Metadata:
    """Metadata with the mark, and a digest of the path of ``source``."""
    mark = mark if source is None else {**mark, "source": source_digest(source)}
    try:
        directory = ifd.read_first(io.BytesIO(metadata.exif)) if metadata.exif else {}
    except ValueError:  # rather no mark than other EXIF
        return metadata
    text = f"liif-core upscale {json.dumps(mark)}"
    directory[_TAG] = ifd.Entry.of(ifd.ASCII, text.encode() + b"\0")
    return evolve(metadata, exif=ifd.block(directory))


def read_mark(path: Path) -> Mark | None:
    """The mark of a file; None if it has none or cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(_HEAD)
            if not (match := _MARK.search(data)):
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
                match = _MARK.search(file.read(_TAIL))
        mark = json.loads(match[1]) if match else None
    except (OSError, ValueError, RecursionError):
        return None
    return mark if isinstance(mark, dict) else None


def source_of(path: Path) -> str:
    """The digest of the source of an output; empty for other files."""
    return str((read_mark(path) or {}).get("source", ""))


def source_digest(path: Path) -> str:
    """A digest of the absolute path of an input."""
    return hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]


def weights_digest(path: Path) -> str:
    """A digest of the bytes of a checkpoint; empty if it cannot be read, which loading it reports."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError:
        return ""


def difference(found: Mark, wanted: Mark) -> str:
    """In what an output was made otherwise, such as "with scale 2, not scale 4"; empty if nothing differs."""
    pairs = [(_shown(found, "scale", "size"), _shown(wanted, "scale", "size"))]
    if found.get("weights") != wanted.get("weights"):
        models = _shown(found, "model"), _shown(wanted, "model")
        pairs.append(models if models[0] != models[1] else (f"{models[0]} of other weights", "those of now"))
    pairs += [(_shown(found, key), _shown(wanted, key)) for key in _SETTINGS]
    return ", ".join(f"with {before}, not {now}" for before, now in pairs if before != now)


def _shown(mark: Mark, *keys: str) -> str:
    key = next((key for key in keys if mark.get(key) is not None), "")
    return f"{key} {one_line(str(mark[key]))[:_NAME]}" if key else f"no {keys[0]}"
