"""Fine-tuning: a model that begins with the weights of a trained one."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from liif_core.errors import UserError, cut
from liif_core.experiment.train_schema import StartSpec
from liif_core.model.continuous import ContinuousModel
from liif_core.models.loading import checkpoint_path
from liif_core.registry.components import Registry
from liif_core.training.checkpoint import load_checkpoint
from liif_core.training.fitting import check_finite, same_kind

_SHOWN = 3  # names of tensors in a message


def start_from(model: ContinuousModel, spec: StartSpec, registry: Registry) -> list[str]:
    """Give ``model`` the weights of a trained model; returns lines that say what fitted, what is new, what is left out.

    A weight fits the parameter or buffer of the same name and shape. Raises UserError for a file that cannot be read or
    an unknown name; where nothing fits; and, unless ``spec.allow_new``, where anything does not fit.
    """
    try:
        path = checkpoint_path(spec.source, registry)
        given = load_checkpoint(path, registry).state
    except UserError as error:
        raise UserError(*(f"train.start_from: {problem}" for problem in error.problems)) from None
    own = model.state_dict()
    fitting = [
        name
        for name, value in own.items()
        if name in given and given[name].shape == value.shape and same_kind(given[name], value)
    ]
    new = [name for name in own if name not in fitting]
    left_out = [name for name in given if name not in fitting]
    where = f"train.start_from: {spec.source}"
    if not fitting:
        raise UserError(f"{where}: no weight has the name and the shape of a parameter of this model")
    problems = [f"no weights for {_listed(new, own, given)}"] if new else []
    problems += [f"the model has no place for {_listed(left_out, given, own)}"] if left_out else []
    if problems and not spec.allow_new:
        advice = "allow_new = true keeps fresh values for what has no weights, and leaves out what has no place"
        raise UserError(*(f"{where}: {problem}" for problem in problems), f"{where}: {advice}")
    model.load_state_dict({name: given[name] for name in fitting}, strict=False)
    check_finite({name: own[name] for name in fitting}, where, " in float32")
    count = sum(given[name].numel() for name in fitting)
    lines = [f"{where}: {len(fitting)} of {len(own)} tensors fitted ({count:,} numbers, of {_parts(fitting)})"]
    lines += [f"    new: {_listed(new, own, given)}"] if new else []
    return lines + ([f"    left out: {_listed(left_out, given, own)}"] if left_out else [])


def _parts(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))


def _listed(names: Sequence[str], of: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
    """The first names with their shapes, and the shapes that the same names have in ``other``."""
    shown = [
        f"{cut(name)} {_form(of[name])}" + (f", which is {_form(other[name])} there" if name in other else "")
        for name in names[:_SHOWN]
    ]
    more = len(names) - len(shown)
    return "; ".join(shown) + (f"; and {more} more of {_parts(names)}" if more else "")


def _form(value: Tensor) -> str:
    """The shape of a tensor, and its type unless it has floating-point numbers."""
    shape = cut(tuple(value.shape))
    return shape if value.dtype.is_floating_point else f"{shape} {str(value.dtype).removeprefix('torch.')}"
