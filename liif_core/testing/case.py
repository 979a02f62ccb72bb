"""A case: a component to check, with its options, its sizes, test inputs and the outputs they lead to."""

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from liif_core.experiment.validation import structure
from liif_core.registry.components import Component, Registry
from liif_core.registry.discovery import discover

Tensors = dict[str, Tensor]
Check = Callable[[Any], None]  # takes a Case; the function's name is the check's, its docstring says what is required


class ContractBroken(AssertionError):
    """A component breaks its contract."""


class ContractWarning(UserWarning):
    """A component keeps its contract, and declares more than it needs."""


class SkipCheck(Exception):
    """A check that this machine cannot make, and the reason."""


def fail(reason: str) -> NoReturn:
    """Raise ContractBroken."""
    raise ContractBroken(reason)


class Case(ABC):
    """A component to check.

    ``component`` is a Component, or the name of an installed one, as ``use`` has it. ``options`` is an object of its
    options class, a table as in TOML, or None for the defaults.
    """

    kind: ClassVar[Any]
    attributes: ClassVar[Mapping[str, tuple[int, bool]]] = {}  # name -> the lowest number, whether None is allowed
    differentiable: ClassVar[tuple[str, ...]] = ()  # inputs that gradients must reach, so that earlier parts can learn

    def __init__(self, component: Component | str, options: Any = None):
        self.component = discover().find(self.kind, component)[0] if isinstance(component, str) else component
        self.given = options

    @property
    def options(self) -> Any:
        """Raises UserError if the options class refuses the given options."""
        if self.given is None or isinstance(self.given, Mapping):
            return structure(self.component.options, dict(self.given or {}), Registry(), f"{self.kind} options")
        return self.given

    @property
    def sizes(self) -> dict[str, Any]:
        """The keyword arguments of ``Component.build`` for this kind."""
        return {}

    def build(self, seed: int = 0) -> Any:
        """The module, in evaluation mode on the CPU.

        Parameters that are initialized to zeros get small random values, since zeros would hide the layers before them.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.component.build(self.options, **self.sizes)
            if not isinstance(module, nn.Module):
                fail(f"build returned {type(module).__name__}; expected a torch.nn.Module")
            for parameter in module.parameters():
                if parameter.requires_grad and not parameter.any():
                    nn.init.normal_(parameter, std=0.1)
        return module.eval()

    @abstractmethod
    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        """Ordinary inputs. The first axis of each is the batch."""

    @abstractmethod
    def outputs(self, module: Any, inputs: Tensors) -> Tensors:
        """The outputs of the module for these inputs. The first axis of each is the batch."""

    def extremes(self) -> list[tuple[str, Tensors]]:
        """Inputs at the limits of what is allowed, each with a short description."""
        return []

    def report(self, message: str) -> None:
        """Warn that the component declares more than it needs: a ContractWarning."""
        warnings.warn(ContractWarning(f"{self.kind} {self.component.name!r}: {message}"), stacklevel=3)


def random(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Uniform random numbers from ``low`` to ``high``, the same for the same seed."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


def builds_for(case: Any, attribute: str, values: set[int]) -> Iterator[tuple[int, Any]]:
    """Modules built with ``attribute``, a size, set to each of ``values``.

    A value that ``build`` refuses with a ValueError is left out, unless it is the case's own.
    """
    own = getattr(case, attribute)
    try:
        for value in sorted(values | {own}):
            setattr(case, attribute, value)
            try:
                module = case.build()
            except ValueError:
                if value == own:
                    raise
                continue
            yield value, module
    finally:
        setattr(case, attribute, own)


def expect_shape(what: str, value: Any, *expected: Any) -> None:
    """``expected``: for each axis its length, or a tuple of the allowed lengths."""
    if not isinstance(value, Tensor):
        fail(f"{what}: expected a tensor, got {type(value).__name__}")
    fits = value.ndim == len(expected) and all(
        have in (want if isinstance(want, tuple) else (want,)) for have, want in zip(value.shape, expected)
    )
    if not fits:
        wanted = ", ".join(" or ".join(map(str, want)) if isinstance(want, tuple) else str(want) for want in expected)
        fail(f"{what}: expected shape ({wanted}), got {tuple(value.shape)}")


def expect_same(what: str, have: Mapping[str, Tensor], want: Mapping[str, Tensor], tolerance: float = 1e-5) -> None:
    """Equal up to ``tolerance`` times the largest absolute value, or times 1 if that is larger."""
    if have.keys() != want.keys():
        fail(f"{what}: expected {', '.join(sorted(want))}, got {', '.join(sorted(have))}")
    for name, expected in want.items():
        value = have[name].detach().cpu()
        expected = expected.detach().cpu()
        if value.shape != expected.shape:
            fail(f"{what}: expected {name} of shape {tuple(expected.shape)}, got {tuple(value.shape)}")
        if not value.numel() or torch.equal(value, expected):
            continue
        difference = (value.double() - expected.double()).abs().nan_to_num(torch.inf).max().item()
        if difference > tolerance * max(1.0, expected.double().abs().nan_to_num(0, 0, 0).max().item()):
            fail(f"{what}: {name} differs by up to {difference:.2g}")


def dtype_name(value: Tensor) -> str:
    """Such as "float32"."""
    return str(value.dtype).removeprefix("torch.")


def name_of(check: Check) -> str:
    return check.__name__


def requirement_of(check: Check) -> str:
    """The requirement that a check tests: the first sentence of its docstring."""
    return inspect.cleandoc(check.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
