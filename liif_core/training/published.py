"""Reads published files without running code in them, and refuses what is damaged before it is used."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liif_core.errors import UserError, cut
from liif_core.training.pickles import STARTS, read_pickle

_ZIP = b"PK\x03\x04"
_FOLDER = 0x10  # an attribute of MS-DOS
_ADVICE = re.compile(  # of torch, to load the file unsafely
    r"In PyTorch 2\.6|Re-running `torch\.load`|This file can still be loaded|Please file an issue|Check the doc|"
    r"Please use `?torch\.serialization|, but got "
)
_DEEPEST = 32  # nested tables and lists in the arguments of a published model
_LARGEST = 1 << 16  # a number in these that may exceed the number of weights
_SUFFIXES = {".pth", ".pt", ".pkl"}  # of the files in the folder of a published checkpoint
_MOST_FILES = 16  # in such a folder
_NAME = "neither a safetensors checkpoint nor a .pth that loads safely"


def read_published(path: Path) -> Any:
    """The content of a .pth or of a pickle of NumPy arrays; of a folder, the contents of its files by name.

    Of a folder, only files that end in .pth, .pt or .pkl are read.

    Raises UserError for a file that is damaged, or that does not load safely.
    """
    if path.is_dir():
        return {file.name: read_published(file) for file in _files_in(path)}
    with open(path, "rb") as file:
        if file.read(2) in STARTS:
            return read_pickle(path)
    check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about old kinds of storage
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch does not document what torch.load raises for a file that it cannot read
        raise UserError(f"{path}: {_NAME}: {refusal(error)}") from None


def _files_in(folder: Path) -> list[Path]:
    """The files of a published checkpoint that is a folder. Raises UserError for any other folder."""
    found = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if found and len(found) <= _MOST_FILES:
        return found
    own = folder / "checkpoints" / "best.safetensors"
    advice = f"; did you mean {own}?" if own.exists() else ", and not the folder of a published checkpoint"
    raise UserError(f"{folder}: cannot be read: Is a directory{advice}")


def refusal(error: Exception) -> str:
    """Why torch did not load a file, on one line, without its advice to load the file unsafely."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(error)).rpartition("WeightsUnpickler error: ")[2]
    lines = (_ADVICE.split(line.removeprefix("Weights only load failed."))[0].strip() for line in text.splitlines())
    return next((cut(line, 300) for line in lines if line), type(error).__name__)


def check_archive(path: Path) -> None:
    """Compare the parts of a zip, as torch writes them, with their checksums. Other files have none and pass.

    Raises UserError for damage, and for what no zip of torch has: compressed or encrypted parts, two parts of a name.
    """
    try:
        with open(path, "rb") as file:
            if file.read(4) != _ZIP:
                return
            length = file.seek(0, 2)
            with zipfile.ZipFile(file) as archive:
                parts = archive.infolist()
                odd = [part for part in parts if part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1]
                if odd or sum(part.file_size for part in parts) > length:
                    raise UserError(f"{path}: {_NAME}: its parts are compressed or overlap, as torch.save writes none")
                if any(part.external_attr & _FOLDER for part in parts):  # torch would read nothing, zipfile does
                    raise UserError(f"{path}: damaged: one of its parts is marked as a folder")
                if len({part.filename for part in parts}) < len(parts):
                    raise UserError(f"{path}: {_NAME}: two of its parts have one name")
                damaged = archive.testzip()
                if damaged is not None:
                    raise UserError(f"{path}: damaged: its part {damaged[:100]!r} does not have its checksum (CRC-32)")
                pickles = [archive.read(part) for part in parts if part.filename.endswith("data.pkl")]
    except UserError:
        raise
    except Exception as error:  # zipfile raises many kinds for archives that are damaged
        raise UserError(f"{path}: damaged: {type(error).__name__}: {cut(error, 300)}") from None
    if any(b"\nbytearray\n" in text or b"bytearray\x93" in text for text in pickles):
        raise UserError(f"{path}: {_NAME}: a bytearray, which is no part of a checkpoint")


def check_arguments(arguments: Any, state: Mapping[Any, Any]) -> None:
    """Raises ValueError for published arguments that no file with these weights has.

    Importers and components count up to such numbers, so that they are compared first.
    """
    most = max(_LARGEST, sum(value.numel() for value in state.values() if isinstance(value, Tensor)))
    level: list[tuple[str, Any]] = [("", arguments)]
    for _ in range(_DEEPEST):
        below: list[tuple[str, Any]] = []
        for name, value in level:
            if isinstance(value, Mapping):
                below += [(str(key), part) for key, part in value.items()]
            elif isinstance(value, (list, tuple, set, frozenset)):
                below += [(name, part) for part in value]
            elif isinstance(value, int) and value > most:
                raise ValueError(f"{cut(name)} is {cut(value)}, and the file has {most:,} numbers or fewer")
        level = below
    if level:
        raise ValueError("its arguments are nested too deeply")
