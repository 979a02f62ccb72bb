"""What is checked: a component, with its options and sizes, what goes into it and what comes out."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from liif_core.experiment.validation import structure
from liif_core.registry.components import Component, Kind, Registry
from liif_core.registry.discovery import discover

Tensors = dict[str, Tensor]
Check = Callable[["Case"], None]  # its name is the function's, and its docstring says what is promised


class ContractBroken(AssertionError):
    """A component does not keep its contract."""


class SkipCheck(Exception):
    """A check that this machine cannot make, and why."""


def fail(why: str) -> NoReturn:
    raise ContractBroken(why)


class Case(ABC):
    """A component to check. ``options`` are an object of its options class, a table as in TOML, or the defaults."""

    kind: ClassVar[Kind]
    promised: ClassVar[Mapping[str, tuple[int, bool]]] = {}  # attribute -> its lowest number, whether it may be None
    differentiable: ClassVar[tuple[str, ...]] = ()  # inputs that gradients must reach, for the parts before to learn

    def __init__(self, component: Component | str, options: Any = None):
        self.component = discover().find(self.kind, component)[0] if isinstance(component, str) else component
        self.given = options

    @property
    def options(self) -> Any:
        """Raises UserError where the options class refuses what was given."""
        if self.given is None or isinstance(self.given, Mapping):
            return structure(self.component.options, dict(self.given or {}), Registry(), f"{self.kind} options")
        return self.given

    @property
    def sizes(self) -> dict[str, Any]:
        """The keywords of ``Component.build`` for this kind."""
        return {}

    def build(self, seed: int = 0) -> nn.Module:
        """The module, in evaluation mode on the CPU. Parameters that begin as zeros would hide the rest: not here."""
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
        """Ordinary inputs, the batch being the first axis of each."""

    @abstractmethod
    def outputs(self, module: nn.Module, inputs: Tensors) -> Tensors:
        """What the module makes of them, the batch being the first axis of each."""

    def extremes(self) -> list[tuple[str, Tensors]]:
        """Inputs at the ends of what is allowed, each with a few words."""
        return []


def random(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Uniform numbers, the same every time."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


def expect_shape(what: str, value: Any, *expected: Any) -> None:
    """``expected``: an axis's length, or the lengths that it may have."""
    if not isinstance(value, Tensor):
        fail(f"{what}: expected a tensor, got {type(value).__name__}")
    fits = value.ndim == len(expected) and all(
        have in (want if isinstance(want, tuple) else (want,)) for have, want in zip(value.shape, expected)
    )
    if not fits:
        wanted = ", ".join(" or ".join(map(str, want)) if isinstance(want, tuple) else str(want) for want in expected)
        fail(f"{what}: expected shape ({wanted}), got {tuple(value.shape)}")


def expect_same(what: str, have: Mapping[str, Tensor], want: Mapping[str, Tensor], tolerance: float = 1e-5) -> None:
    """Equal up to ``tolerance`` of the largest value, which is taken to be at least 1."""
    if have.keys() != want.keys():
        fail(f"{what}: {', '.join(sorted(have))} instead of {', '.join(sorted(want))}")
    for name, expected in want.items():
        value = have[name].detach().cpu()
        expected = expected.detach().cpu()
        if value.shape != expected.shape:
            fail(f"{what}: {name} has shape {tuple(value.shape)} instead of {tuple(expected.shape)}")
        if not value.numel() or torch.equal(value, expected):
            continue
        difference = (value.double() - expected.double()).abs().nan_to_num(torch.inf).max().item()
        if difference > tolerance * max(1.0, expected.double().abs().nan_to_num(0, 0, 0).max().item()):
            fail(f"{what}: {name} differs by up to {difference:.2g}")


def name_of(check: Check) -> str:
    return check.__name__


def promise_of(check: Check) -> str:
    """What the check is about: the first sentence of its docstring."""
    return inspect.cleandoc(check.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
