"""The safetensors files of checkpoints: one sequence of bytes for one content, and a hash of all of them."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from liif_core.errors import UserError, cut

_DIGEST = "file_sha256"  # of the file with 64 zeros in its place
_ZEROS = "0" * 64
_ENTRY = re.compile(rb'"file_sha256":"([^"\\]*)"')
# Files without the digest are older ones, which have these entries. Any other entry may be a damaged digest.
_BEFORE = {"format", "format_version", "experiment", "sha256", "known"}
_CHUNK = 1 << 20


def container_bytes(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file. Equal tensors and metadata give equal bytes; safetensors alone orders metadata at random."""
    data = safetensors.torch.save(dict(state), {**metadata, _DIGEST: _ZEROS})
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    entries = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    start, body = len(text).to_bytes(8, "little") + text, memoryview(data)[end:]
    digest = hashlib.sha256(start)
    digest.update(body)
    place = next(_ENTRY.finditer(start)).start(1)
    return b"".join([start[:place], digest.hexdigest().encode(), start[place + 64 :], body])


def read_container(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises UserError where it cannot be read."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: damaged, or not a safetensors file: {cut(error, 300)}") from None


def check_digest(path: Path, metadata: Mapping[str, str]) -> bool:
    """Whether the file has a digest of all its bytes; older ones have none. Raises UserError where it does not fit."""
    stated = metadata.get(_DIGEST)
    if stated is None:
        unknown = sorted(metadata.keys() - _BEFORE)
        if unknown:
            raise UserError(f"{path}: damaged: its metadata has an unknown entry {cut(unknown[0])!r}")
        return False
    with open(path, "rb") as file:
        start = file.read(8)
        start += file.read(int.from_bytes(start, "little"))
        places = [found.span(1) for found in _ENTRY.finditer(start)]
        digest = hashlib.sha256()
        if len(places) == 1:
            digest.update(start[: places[0][0]] + _ZEROS.encode() + start[places[0][1] :])
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    if len(places) != 1 or digest.hexdigest() != stated:
        raise UserError(f"{path}: damaged: the file does not have the SHA-256 that it was saved with")
    return True
