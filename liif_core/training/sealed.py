"""Files that ``torch.save`` writes, with the SHA-256 of all their bytes as the comment of the zip that they are."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from liif_core.errors import UserError
from liif_core.training.published import check_archive

_END = b"PK\x05\x06"  # of a zip: 22 bytes, of which the last two are the length of the comment
_SEAL = b"liif-core SHA-256 "


def write_sealed(path: Path, content: Any) -> None:
    """Write plain values and tensors; ``torch.load`` reads them too."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with open(path, "wb") as file:
        digest = hashlib.sha256()
        length = (len(_SEAL) + 64).to_bytes(2, "little")
        for part in (buffer.getbuffer()[:-2], length, _SEAL):
            file.write(part)
            digest.update(part)
        file.write(digest.hexdigest().encode())


def read_sealed(path: Path) -> Any:
    """What ``write_sealed`` wrote, on the CPU, or an older file without a hash.

    Raises ValueError for damage, and what torch raises for a file that it cannot read.
    """
    data = path.read_bytes()
    if data[-22:-18] == _END and data[-2:] == b"\0\0":  # older files end without a comment
        try:
            check_archive(path)
        except UserError as error:
            raise ValueError(str(error).removeprefix(f"{path}: damaged: ")) from None
    elif data[-64 - len(_SEAL) : -64] != _SEAL or hashlib.sha256(data[:-64]).hexdigest().encode() != data[-64:]:
        raise ValueError("it is incomplete, or does not have the SHA-256 that it was saved with")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
