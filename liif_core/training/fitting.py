"""Whether weights fit a model, which is found out before memory is taken for the model."""

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as modules

from liif_core.errors import UserError, cut
from liif_core.experiment.build import build_model
from liif_core.experiment.schema import ModelSpec
from liif_core.model.continuous import ContinuousModel

_SHOWN = 5  # problems of one kind in a message


class _TooMany(ValueError):
    """A model has far more parts than the file has tensors."""


def build_fitting(spec: ModelSpec, state: Mapping[str, Tensor], where: str) -> ContinuousModel:
    """The model of a checked ``[model]`` table with the weights of ``state``, on the CPU.

    The model is first built on the device "meta", where tensors have shapes and no memory, and compared with the
    weights. Raises UserError where these do not fit.
    """
    with _at_most(len(state)), torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shown when it is built again
        try:
            outline = build_model(spec)
        except UserError as error:
            if isinstance(error.__cause__, _TooMany):
                raise _named(error, where) from error.__cause__
            outline = None  # parts of plugins that compute with values cannot be built there
    if outline is not None:
        check_fit(outline.state_dict(), state, where)
    with _at_most(len(state)):
        try:
            model = build_model(spec)
        except UserError as error:
            raise _named(error, where) from error.__cause__
    expected = model.state_dict()
    check_fit(expected, state, where)
    on_meta = [name for name, value in [*expected.items(), *model.named_buffers()] if value.is_meta]
    if on_meta:
        raise UserError(
            f"{where}: {on_meta[0]} has no values: a component keeps tensors from one build to the next; "
            "make them anew in each build"
        )
    model.load_state_dict(state)
    wide = {name: expected[name] for name, value in state.items() if value.dtype == torch.float64}
    check_finite(wide, where, " in float32")
    return model


def _named(error: UserError, where: str) -> UserError:
    return UserError(*(problem if problem.startswith(where) else f"{where}: {problem}" for problem in error.problems))


@contextmanager
def _at_most(tensors: int) -> Iterator[None]:
    """Within this context, building more parameters or modules than a file of so many tensors can have raises.

    A few times as many are allowed, for models that make parts that they do not keep.
    """
    thread = threading.get_ident()
    limits = {"parameters": 4 * tensors + 1000, "modules": 100 * tensors + 10_000}
    count = dict.fromkeys(limits, 0)

    def counted(what: str, value: Any) -> None:
        if value is not None and threading.get_ident() == thread:
            count[what] += 1
            if count[what] > limits[what]:
                raise _TooMany(f"it has over {limits[what]:,} {what}, and the file has {tensors:,} tensors")

    handles = [
        modules.register_module_parameter_registration_hook(lambda owner, name, value: counted("parameters", value)),
        modules.register_module_module_registration_hook(lambda owner, name, value: counted("modules", value)),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str) -> None:
    """Raises UserError where names, shapes or kinds of numbers differ."""
    problems = [f"{where}: no weights for {cut(name)}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"{where}: the model has no place for {cut(name)}" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        have, want = found[name], expected[name]
        if have.shape != want.shape:
            shape = cut(tuple(have.shape))
            problems.append(f"{where}: {cut(name)} is {shape}, and the model expects {tuple(want.shape)}")
        elif not same_kind(have, want):
            problems.append(f"{where}: {cut(name)} is of type {have.dtype}, and the model expects {want.dtype}")
    if problems:
        more = [f"{where}: and {len(problems) - _SHOWN} more such problems"]
        raise UserError(*problems[:_SHOWN], *(more if len(problems) > _SHOWN + 1 else problems[_SHOWN:]))


def same_kind(have: Tensor, want: Tensor) -> bool:
    """Whether both have floating-point numbers, or whole numbers, or truth values, or complex numbers."""
    return _kind(have.dtype) == _kind(want.dtype)


def _kind(dtype: torch.dtype) -> tuple[bool, bool, bool]:
    return dtype.is_floating_point, dtype.is_complex, dtype == torch.bool


def check_tensors(state: Mapping[Any, Any], where: str) -> None:
    """Raises UserError for what is no ordinary tensor with a value for each element."""
    for name, value in state.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise UserError(f"{where}: not a published checkpoint: {cut(name)} is no tensor")
        odd = _odd(value)
        if odd:
            raise UserError(f"{where}: {cut(name)} {odd}; expected an ordinary (dense) tensor")


def _odd(value: Tensor) -> str:
    if value.is_meta:
        return "has a shape and no values (device 'meta')"
    if value.is_nested or value.layout != torch.strided:
        return f"is a {'nested' if value.is_nested else str(value.layout).removeprefix('torch.')} tensor"
    if value.is_quantized:
        return f"is quantized ({value.dtype})"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "repeats fewer values than it has elements"
    return ""


def check_finite(state: Mapping[str, Tensor], where: str, note: str = "") -> None:
    """Raises UserError, which names the tensor, for weights that are NaN or infinite."""
    for name, value in state.items():
        if value.dtype.is_floating_point or value.dtype.is_complex:
            wide = value.float() if value.element_size() < 2 else value  # torch cannot compare with 8 bits
            bad = value.numel() - int(wide.isfinite().sum())
            if bad:
                numbers = f"{bad:,} of {value.numel():,} weights"
                raise UserError(
                    f"{where}: {cut(name)}: {numbers} are NaN or infinite{note}; use an earlier checkpoint of its run"
                )
