"""Running checks: all in one call, or each as a test of a pytest class."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from liif_core.errors import did_you_mean
from liif_core.registry.components import Component
from liif_core.testing.case import (
    Case,
    Check,
    ContractBroken,
    SkipCheck,
    name_of,
    promise_of,
)

_FIRST = ("options_frozen", "contract")  # where these fail, the others cannot say anything


@contextmanager
def _one_thread() -> Iterator[None]:
    """For tensors this small, several threads are many times slower than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def failures(case: Case, checks: Iterable[Check]) -> dict[str, Exception]:
    """What each check that fails says, by its name. Those that this machine cannot make are left out."""
    found: dict[str, Exception] = {}
    for check in checks:
        try:
            with _one_thread():
                check(case)
        except SkipCheck:
            pass
        except Exception as error:
            found[name_of(check)] = error
            if name_of(check) in _FIRST:
                break
    return found


def run(case: Case, checks: Iterable[Check], expected_failures: Mapping[str, str]) -> None:
    """Make every check. Raises AssertionError with a line for each that fails, or was expected to and does not."""
    checks = tuple(checks)
    _known(expected_failures, checks)
    found = failures(case, checks)
    lines = [f"{name}: {_said(error)}" for name, error in found.items() if name not in expected_failures]
    stopped = any(name in found for name in _FIRST)
    lines += [_passes(name, why) for name, why in expected_failures.items() if name not in found and not stopped]
    if lines:
        head = f"{case.kind} {case.component.name!r} does not keep its contract:"
        cause = next((error for name, error in found.items() if name not in expected_failures), None)
        raise ContractBroken("\n  ".join([head, *lines])) from cause


class Contract:
    """What the classes of the kinds share. ``component`` is a Component, or what ``use`` says of an installed one.

    ``options`` are as in TOML, or the defaults; ``expected_failures`` maps a check's name to why it fails: the test is
    then an xfail, and fails where the check passes. Sizes are attributes too, named as in ``check_encoder`` and so on.
    """

    component: ClassVar[Component | str]
    options: ClassVar[Any] = None
    expected_failures: ClassVar[Mapping[str, str]] = {}
    _case: ClassVar[type[Case]]
    _checks: ClassVar[tuple[Check, ...]] = ()

    def __init_subclass__(cls, case: type[Case] | None = None, checks: tuple[Check, ...] = ()) -> None:
        if case is not None:
            cls._case, cls._checks = case, checks
            for check in checks:
                setattr(cls, f"test_{name_of(check)}", _as_test(check))
        _known(cls.expected_failures, cls._checks)

    def _made(self) -> Case:
        wanted = inspect.signature(self._case.__init__).parameters.keys() - {"self"}
        return self._case(**{name: getattr(self, name) for name in wanted if hasattr(self, name)})


def _as_test(check: Check) -> Callable[[Contract], None]:
    def test(self: Contract) -> None:
        import pytest

        why = self.expected_failures.get(name_of(check))
        try:
            with _one_thread():
                check(self._made())
        except SkipCheck as reason:
            pytest.skip(str(reason))
        except Exception as error:
            if why is not None:
                pytest.xfail(f"{why} ({_said(error)})")
            if isinstance(error, ContractBroken):
                raise ContractBroken(f"{name_of(check)}: {error}\npromised: {promise_of(check)}") from None
            raise
        if why is not None:
            raise ContractBroken(_passes(name_of(check), why))

    test.__name__ = f"test_{name_of(check)}"
    test.__doc__ = check.__doc__
    return test


def _known(expected_failures: Mapping[str, str], checks: Iterable[Check]) -> None:
    names = [name_of(check) for check in checks]
    for name in expected_failures:
        if name not in names:
            near = did_you_mean(name, names)
            raise ValueError(f"expected_failures: no check is named {name!r}{near}; there are {', '.join(names)}")


def _passes(name: str, why: str) -> str:
    return f"{name}: expected to fail ({why}), and passes: take it out of expected_failures"


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, ContractBroken) else f"{type(error).__name__}: {error}"
