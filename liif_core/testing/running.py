"""Runs checks: all in one call, or each as a test of a pytest class."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from liif_core.errors import did_you_mean
from liif_core.registry.components import Component
from liif_core.testing.case import Case, Check, ContractBroken, SkipCheck, name_of, requirement_of

_FIRST = ("options_frozen", "contract", "prepare")  # if one of these fails, the results of later checks mean nothing


@contextmanager
def _one_thread() -> Iterator[None]:
    """Tensors are so small here that several threads are many times slower than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def failures(case: Case, checks: Iterable[Check]) -> dict[str, Exception]:
    """The error of each check that fails, by its name. Checks that this machine cannot make are left out."""
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
    """Make every check. Raises AssertionError with a line for each unexpected failure and each unexpected pass."""
    checks = tuple(checks)
    _expect_names(expected_failures, checks)
    found = failures(case, checks)
    lines = [f"{name}: {_message(error)}" for name, error in found.items() if name not in expected_failures]
    stopped = any(name in found for name in _FIRST)
    lines += [_passes(name, why) for name, why in expected_failures.items() if name not in found and not stopped]
    if lines:
        head = f"{case.kind} {case.component.name!r} breaks its contract:"
        cause = next((error for name, error in found.items() if name not in expected_failures), None)
        raise ContractBroken("\n  ".join([head, *lines])) from cause


class Contract:
    """The base of the test classes.

    ``component`` is a Component, or the name of an installed one, as ``use`` has it. ``options`` is a table as in TOML,
    an object of the options class, or None for the defaults. ``expected_failures`` maps the name of a check to the
    reason why it fails: the test is then an xfail, and it fails if the check passes. Sizes are further attributes, with
    the names of the arguments of ``check_encoder`` and so on.
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
        _expect_names(cls.expected_failures, cls._checks)

    def _case_of_class(self) -> Case:
        wanted = inspect.signature(self._case.__init__).parameters.keys() - {"self"}
        return self._case(**{name: getattr(self, name) for name in wanted if hasattr(self, name)})


def _as_test(check: Check) -> Callable[[Contract], None]:
    def test(self: Contract) -> None:
        import pytest

        why = self.expected_failures.get(name_of(check))
        try:
            with _one_thread():
                check(self._case_of_class())
        except SkipCheck as reason:
            pytest.skip(str(reason))
        except Exception as error:
            if why is not None:
                pytest.xfail(f"{why} ({_message(error)})")
            if isinstance(error, ContractBroken):
                raise ContractBroken(f"{name_of(check)}: {error}\nrequired: {requirement_of(check)}") from None
            raise
        if why is not None:
            raise ContractBroken(_passes(name_of(check), why))

    test.__name__ = f"test_{name_of(check)}"
    test.__doc__ = check.__doc__
    return test


def _expect_names(expected_failures: Mapping[str, str], checks: Iterable[Check]) -> None:
    names = [name_of(check) for check in checks]
    for name in expected_failures:
        if name not in names:
            near = did_you_mean(name, names)
            raise ValueError(f"expected_failures: no check is named {name!r}{near}; the checks are {', '.join(names)}")


def _passes(name: str, why: str) -> str:
    return f"{name}: expected to fail ({why}), but passes: remove it from expected_failures"


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, ContractBroken) else f"{type(error).__name__}: {error}"
