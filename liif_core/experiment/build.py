"""Builds the model of a ``[model]`` table, and renders a few pixels with it."""

from typing import Any, get_args, get_type_hints

import torch
from torch import nn

from liif_core.errors import UserError, cut
from liif_core.experiment.schema import CompositionSpec, ModelSpec, WholeModelSpec
from liif_core.model.blame import component_of
from liif_core.model.composed import ComposedModel
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import eval_mode
from liif_core.model.geometry import cell_of, make_coord
from liif_core.model.protocols import (
    Conditioning,
    Decoder,
    Encoder,
    Features,
    GlobalDecoder,
    LatentField,
    Sampling,
    Sites,
)
from liif_core.registry.changes import changes_after
from liif_core.registry.components import Choice

Scope = get_type_hints(Conditioning)["scope"]  # Literal["query", "offset", "image"]
_WHOLE_OR_NONE = "a whole number from 0, or None"


def build_model(spec: ModelSpec) -> ContinuousModel:
    """The model of a checked ``[model]`` table, with fresh weights, on the CPU.

    Raises UserError where a component cannot be built or breaks its contract, or where components do not fit together.
    """
    return _whole(spec) if isinstance(spec, WholeModelSpec) else _composed(spec)


def _whole(spec: WholeModelSpec) -> ContinuousModel:
    model = _built(spec.model, channels=spec.channels)
    where = f"{_where(spec.model)} breaks its contract"
    if not isinstance(model, ContinuousModel):
        raise UserError(f"{where}: expected a liif_core.ContinuousModel, got {type(model).__name__}")
    channels, halo, statistics = getattr(model, "channels", "missing"), model.halo, model.num_statistics
    checks = [
        ("channels", channels, channels == spec.channels, str(spec.channels)),
        ("multiple_of", model.multiple_of, _is_whole(model.multiple_of, 1), "a whole number from 1"),
        ("halo", halo, halo is None or _is_whole(halo, 0), _WHOLE_OR_NONE),
        ("num_statistics", statistics, statistics is None or _is_whole(statistics, 0), _WHOLE_OR_NONE),
    ]
    problems = [
        f"{where}: {name} is {have!r}; expected {expected}" for name, have, fits, expected in checks if not fits
    ]
    if problems:
        raise UserError(*problems)
    model.component_names = {"": _where(spec.model)}
    return model


def _composed(spec: CompositionSpec) -> ComposedModel:
    encoder = _part(spec.encoder, Encoder, in_channels=spec.channels)
    features = _part(spec.features, Features, in_channels=encoder.out_channels)
    sampling = _part(spec.sampling, Sampling)
    conditioning = {choice.component.name: _condition(choice) for choice in spec.conditioning}
    decoder = _part(
        spec.decoder,
        Decoder,
        in_channels=features.channels,
        out_channels=spec.channels,
        neighbours=sampling.neighbours,
        conditions={name: condition.channels for name, condition in conditioning.items()},
    )
    if not (decoder.num_statistics is None or _is_whole(decoder.num_statistics, 0)):
        have = f"num_statistics is {decoder.num_statistics!r}"
        raise UserError(f"{_where(spec.decoder)} breaks its contract: {have}; expected {_WHOLE_OR_NONE}")
    if decoder.num_statistics and not isinstance(decoder, GlobalDecoder):
        raise UserError(
            f"{_where(spec.decoder)} breaks its contract: num_statistics is {decoder.num_statistics}; expected the "
            "methods partial_statistic and with_statistic of liif_core.GlobalDecoder"
        )
    missing = sorted(set(decoder.needs) - conditioning.keys())
    if missing:
        have = ", ".join(conditioning) or "none"
        raise UserError(
            f"model.conditioning: decoder {spec.decoder.use!r} needs {', '.join(map(repr, missing))} (given: {have}): "
            f'add [[model.conditioning]] use = "{missing[0]}"'
        )
    model = ComposedModel(
        encoder, features, sampling, conditioning, decoder, channels=spec.channels, residual=spec.residual,
        input_mean=spec.input_mean or (0.5,), input_std=spec.input_std or (0.5,),
    )  # fmt: skip
    parts = {name: getattr(spec, name) for name in ("encoder", "features", "sampling", "decoder")}
    parts |= {f"conditioning.{i}": choice for i, choice in enumerate(spec.conditioning)}
    model.component_names = {path: _where(choice) for path, choice in parts.items()}
    return model


def try_model(model: ContinuousModel) -> None:
    """Render a few pixels of a small image on the CPU. Raises UserError where that fails, or a part gives odd values.

    The message names the component and its distribution.
    """
    problem = "its parts do not work together" if isinstance(model, ComposedModel) else "it does not work"
    image = torch.linspace(0, 1, model.channels * 20).view(1, model.channels, 4, 5)
    handles = _watched(model) if isinstance(model, ComposedModel) else []
    with torch.no_grad(), eval_mode(model):  # the trial changes nothing, not even a running mean
        try:
            picture = model.encode(image)
            rendered = [
                (picture.render((8, 10)), (1, model.channels, 8, 10)),
                (picture.query(make_coord((8, 10))[None, 40:43], cell_of((8, 10))), (1, 3, model.channels)),
            ]
            shapes = [(tuple(colors.shape), expected) for colors, expected in rendered]
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # of a plugin, or of two plugins that do not fit together
            component = component_of(model, error)
            by = f" (in {component})" if component else ""
            raise UserError(f"model: {problem}{by}: {type(error).__name__}: {cut(error, 1000)}") from error
        finally:
            for handle in handles:
                handle.remove()
    last = model.component_names.get("decoder", model.component_names.get("", ""))
    by = f" (in {last})" if last else ""
    for found, expected in shapes:
        if found != expected:
            raise UserError(f"model: {problem}{by}: expected colors {expected}, got {found}")
    for colors, _ in rendered:
        if colors.dtype != torch.float32:
            raise UserError(f"model: {problem}{by}: expected colors in float32, got {colors.dtype}")
        if not bool(colors.isfinite().all()):
            raise UserError(f"model: {problem}{by}: it renders colors that are NaN or infinite")


def _watched(model: ComposedModel) -> list[Any]:
    """Checks what the parts of a model return while it renders. Returns handles, which remove the checks."""

    def check(path: str, channels: int | None = None) -> Any:
        where = f"{model.component_names.get(path, path)} breaks its contract"

        def checked(module: nn.Module, inputs: Any, found: Any) -> None:
            if not isinstance(found, torch.Tensor):
                raise UserError(f"{where}: forward returned {type(found).__name__}; expected a tensor")
            if found.dtype != torch.float32:
                raise UserError(f"{where}: forward returned {found.dtype}; expected torch.float32")
            if channels is not None and (found.ndim != 4 or found.shape[1] != channels):
                raise UserError(f"{where}: forward returned {tuple(found.shape)}; expected (B, {channels}, h, w)")
            if not bool(found.isfinite().all()):
                raise UserError(f"{where}: forward returned values that are NaN or infinite")

        return checked

    def typed(path: str, expected: type) -> Any:
        def checked(module: nn.Module, inputs: Any, found: Any) -> None:
            if not isinstance(found, expected):
                raise UserError(
                    f"{model.component_names.get(path, path)} breaks its contract: forward returned "
                    f"{type(found).__name__}; expected {expected.__name__}"
                )

        return checked

    handles = [
        model.encoder.register_forward_hook(check("encoder", model.encoder.out_channels)),
        model.features.register_forward_hook(typed("features", LatentField)),
        model.sampling.register_forward_hook(typed("sampling", Sites)),
    ]
    for i, part in enumerate(model.conditioning):
        handles.append(part.register_forward_hook(check(f"conditioning.{i}")))
    return handles


def _where(choice: Choice) -> str:
    key = "model" if choice.kind == "model" else f"model.{choice.kind}"
    return f"{key}: {choice.use!r} of {choice.origin}"


def _condition(choice: Choice) -> Any:
    module = _part(choice, Conditioning)
    if module.scope not in get_args(Scope):
        expected = " or ".join(map(repr, get_args(Scope)))
        raise UserError(f"{_where(choice)} breaks its contract: scope is {module.scope!r}; expected {expected}")
    return module


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _built(choice: Choice, **sizes: Any) -> Any:
    try:
        return choice.build(**sizes)
    except (Exception, SystemExit) as error:  # of a plugin
        reason = str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}"
        reasons = error.problems if isinstance(error, UserError) else [reason]
        raise UserError(*(f"{_where(choice)} could not be built: {each}" for each in reasons)) from error


def _part(choice: Choice, contract: type, **sizes: Any) -> Any:
    """A component, built, that has every attribute and method of its contract."""
    module = _built(choice, **sizes)
    if not isinstance(module, nn.Module):
        raise UserError(f"{_where(choice)} breaks its contract: it is a {type(module).__name__}, not a torch.nn.Module")
    promised = {name for base in contract.__mro__ for name in (*getattr(base, "__annotations__", ()), *vars(base))}
    missing = sorted(name for name in promised if not name.startswith("_") and not hasattr(module, name))
    if missing:
        problem = f"{_where(choice)} breaks its contract: it has no attribute {', '.join(missing)}"
        raise UserError(problem, *_what_changed(choice.kind, module))
    return module


def _what_changed(kind: str, module: object) -> list[str]:
    """The changes of the plugin API since version 2, if a module was apparently made for that version."""
    old = hasattr(module, "pointwise") or (kind == "conditioning" and not hasattr(module, "scope"))
    return [f"since version 2 of the plugin API: {line}" for line in changes_after(2)] if old else []
