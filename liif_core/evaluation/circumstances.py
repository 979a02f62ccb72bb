"""What results state besides the scores: the machine, the source, the data and the work."""

import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from attrs import frozen

from liif_core.errors import UserError
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast, device_of
from liif_core.model.flops import counter
from liif_core.sizes import Scale, scaled_size

_SIDE = 32  # pixels of the LR image whose multiply-adds are counted
_SOURCE = Path(__file__).parents[2]  # the folder of liif_core, and in a checkout that of pyproject.toml


@frozen
class Circumstances:
    """Where, how and on what something is measured."""

    data_sha256: str
    machine: Mapping[str, str | int]
    precision: str
    commit: str  # of the checkout; empty: unknown

    @classmethod
    def here(cls, files: Iterable[Path], device: torch.device, precision: str) -> "Circumstances":
        """Those of this process, with the files of a data set. Raises UserError for a file that cannot be read."""
        try:
            return cls(files_sha256(files), machine_facts(device), precision, source_commit())
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None


def machine_facts(device: torch.device) -> dict[str, str | int]:
    """Processor, cores, version of torch, threads, and the device that was computed on."""
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "cpu": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "torch": torch.__version__,
        "device": named,
    }


def _processor() -> str:
    try:
        listed = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        listed = ""
    found = re.search(r"^model name\s*:\s*(\S.*)$", listed, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine() or "unknown"


def source_commit() -> str:
    """The git commit of the checkout that liif_core runs from, with "-dirty" where files differ; empty if unknown."""
    if not ((_SOURCE / ".git").exists() and (_SOURCE / "pyproject.toml").is_file()):
        return ""
    command = ["git", "-C", str(_SOURCE), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def files_sha256(paths: Iterable[Path]) -> str:
    """SHA-256 over the SHA-256 of files, sorted, a line each: names and order make no difference. Raises OSError."""
    digests = []
    for path in paths:
        with open(path, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashlib.sha256("".join(f"{digest}\n" for digest in sorted(digests)).encode()).hexdigest()


def multiply_adds(model: ContinuousModel, scale: Scale) -> float | None:
    """Multiply-adds for each output pixel, encoder included, counted on a small image; None where none are counted.

    Matrix products and convolutions are counted, and no element-wise operations. A small image has relatively more of
    the work that a model does at borders.
    """
    low = torch.rand(1, model.channels, _SIDE, _SIDE, device=device_of(model))
    size = scaled_size((_SIDE, _SIDE), scale)
    try:
        with torch.no_grad(), counter() as counted:
            model.encode(low).render(size)
    except ValueError:  # a size that the model cannot render
        return None
    total: int = counted.get_total_flops()
    return total / 2 / (size[0] * size[1]) if total else None


def warm_up(model: ContinuousModel, precision: str) -> None:
    """Render a small image, so that what is done once per process is not part of the first time that is measured."""
    device = device_of(model)
    low = torch.rand(1, model.channels, _SIDE, _SIDE, device=device)
    with torch.inference_mode(), autocast(device, precision):
        model.encode(low).render((2 * _SIDE, 2 * _SIDE))
