"""Packages that a training can do without: one that is absent or broken costs what it is for, and a line."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

Result = TypeVar("Result")


class Broken(UserWarning):
    """An optional package is installed and does not work."""


class Optional:
    """An optional package, used until it fails.

    ``missing`` is a line for the user where the package is not installed, else empty.
    """

    def __init__(self, package: str, extra: str, without: str):
        self.package, self.without = package, without
        try:
            self.works = find_spec(package) is not None
        except (ImportError, ValueError):
            self.works = False
        advice = f"pip install 'liif-core[{extra}]'"
        self.missing = "" if self.works else f"{package} is not installed, so {without}: {advice}"

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result | None:
        """What a function that needs the package returns; None from its first failure on, of which a warning tells."""
        if not self.works:
            return None
        try:
            return function(*arguments)
        except Exception as error:  # a broken installation raises anything, and so does a full disk in a library
            self.works = False
            reason = next(iter(str(error).splitlines()), "")
            what = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
            warnings.warn(f"{self.package} does not work, so {self.without} ({what})", Broken, stacklevel=2)
            return None
