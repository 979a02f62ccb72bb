"""Which component of a model is to blame for an error, or for values that are not finite."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from liif_core.errors import Interrupted, UserError, cut


def component_of(model: nn.Module, error: BaseException) -> str | None:
    """The component whose code raised ``error``, as messages name it; None if it was none that ``build_model`` built.

    It is the innermost one in the traceback: the module itself, or a module inside it.
    """
    names: dict[str, str] = getattr(model, "component_names", {})
    owners: dict[int, str] = {}
    for path, name in sorted(names.items()):  # the whole model, "", before its parts
        owners |= {id(part): name for part in model.get_submodule(path).modules()}
    found, trace = None, error.__traceback__
    while trace is not None:
        found = owners.get(id(trace.tb_frame.f_locals.get("self")), found)
        trace = trace.tb_next
    return found


@contextmanager
def blamed(model: nn.Module) -> Iterator[None]:
    """Within this context, an exception out of a component becomes a UserError that names it and its distribution."""
    try:
        yield
    except (UserError, Interrupted, torch.cuda.OutOfMemoryError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        component = component_of(model, error)
        if component is None:
            raise
        raise UserError(f"{component} failed: {type(error).__name__}: {cut(error, 1000)}") from error


def check_finite_sum(total: Tensor, model: Any, precision: str) -> None:
    """Raises UserError where the sum of rendered colors is NaN or infinite, and so are colors.

    A sum needs no memory of its own, unlike a comparison of each value.
    """
    if not bool(total.isfinite()):
        name = f"the model {model.loaded_from}" if model.loaded_from else "the model"
        advice = "use another model" if precision == "float32" else "use --precision float32"
        raise UserError(f"{name} rendered values that are NaN or infinite; nothing was written: {advice}")
