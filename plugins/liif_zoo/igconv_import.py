"""The importer of the published checkpoints of IGConv and IGConv+, as BasicSR writes them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from liif_core.importing import State, check_layers, renamed, taken

MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K
_RESIDUAL_SCALE = 0.1  # of the published encoder; it is not in checkpoints

Table = dict[str, Any]


def convert(content: Any, encoder: Callable[..., tuple[Table, State]]) -> tuple[Table, State] | None:
    """A ``[model]`` table and weights; None for content of another form.

    The averaged weights are used if there are such. All sizes are those of the parameters.
    """
    parts = [content.get(name) for name in ("params_ema", "params")] if isinstance(content, Mapping) else []
    published = next((part for part in parts if isinstance(part, Mapping)), None)
    if published is None or not any(str(name).startswith("upsample.query_kernel.") for name in published):
        return None
    state = {str(name): value for name, value in published.items()}
    if odd := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"IGConv: {odd[0]}: expected a tensor, got {type(state[odd[0]]).__name__}")
    upsample, skip = (_part(state, prefix) for prefix in ("upsample.", "skip.convs."))
    encoder_table, encoder_state = _encoder(state, encoder)
    channels = encoder_table["channels"]
    waves, width, depth, outputs, rows = _sizes(upsample, "upsample.")
    side = round((rows / channels) ** 0.5)
    if rows != channels * side**2 or side % 2 == 0:
        raise ValueError(
            f"IGConv: expected kernels of k x k features of {channels} channels, k odd, got {rows} rows: "
            f"'upsample.freq' does not fit 'conv_after_body.weight'"
        )
    decoder = {"use": "igconv", "waves": waves, "width": width, "depth": depth, "unfold": side}
    decoder_state = {f"kernels.{name}": value for name, value in _kernels(upsample, "upsample.", depth).items()}
    if skip:
        own_waves, own_width, own_depth, own_outputs, own_rows = _sizes(skip, "skip.convs.")
        found, expected = (own_waves, own_width, own_outputs, own_rows), (waves, width, 4 * outputs, rows)
        if found != expected if own_depth else found[::2] != expected[::2]:
            raise ValueError(f"IGConv+: 'skip.convs.': expected (waves, width, outputs, rows) {expected}, got {found}")
        decoder |= {"skip_depth": own_depth, "geo_ensemble": True}
        own = _kernels(_regrouped(skip), "skip.convs.", own_depth)
        decoder_state |= {f"skip.{name}": value for name, value in own.items()}
    table = {
        "channels": outputs,
        "residual": "none",
        "input_mean": list(MEAN),
        "input_std": [1.0],
        "encoder": encoder_table,
        "features": {"use": "unfold", "size": side},
        "sampling": {"use": "nearest"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": decoder,
    }
    named = {"encoder": encoder_state, "decoder": decoder_state}
    return table, {f"{part}.{name}": value for part, own in named.items() for name, value in own.items()}


def _part(state: State, prefix: str) -> State:
    """Remove the parameters with this prefix from ``state``, and return them without it."""
    return {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}


def _shape(state: Mapping[str, Tensor], name: str, prefix: str) -> tuple[int, ...]:
    shape = tuple(taken(dict(state), name, f"IGConv's {prefix!r}").shape)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"IGConv: '{prefix}{name}': expected a tensor of 4 dimensions, got the shape {shape}")
    return shape


def _sizes(state: Mapping[str, Tensor], prefix: str) -> tuple[int, int, int, int, int]:
    """(waves, width, depth, outputs, rows): the network of kernels, by the shapes of its parameters."""
    rows, values = _shape(state, "freq", prefix)[:2]
    depth = sum(name.startswith("query_kernel.") and name.endswith(".weight") for name in state) - 1
    outputs = _shape(state, f"query_kernel.{2 * max(depth, 0)}.weight", prefix)[0]
    width = _shape(state, "query_kernel.0.weight", prefix)[0] if depth > 0 else values
    if values % 2:
        raise ValueError(f"IGConv: '{prefix}freq': expected an even number of frequencies, got {values}")
    return values // 2, width, depth, outputs, rows


def _kernels(published: Mapping[str, Tensor], prefix: str, depth: int) -> State:
    """The network of kernels with our names. Its 1x1 convolutions are linear layers; y comes before x."""
    state = {}
    for name, value in published.items():
        if not name.endswith("bias"):
            if value.shape[2:] != (1, 1):
                raise ValueError(
                    f"IGConv: '{prefix}{name}': expected a shape that ends in 1, 1, got {tuple(value.shape)}"
                )
            value = value.flatten(1)
        state[name] = torch.cat(value.chunk(2, dim=1)[::-1], dim=1) if name == "freq" else value
    names = {"freq": "frequency", "amplitude": "amplitude", "phase": "phase"}
    names |= {f"query_kernel.{2 * i}": f"layers.{i}" for i in range(depth + 1)}
    for name in ("freq", "amplitude", "phase.weight", "phase.bias"):
        taken(dict(state), name, f"IGConv's {prefix!r}")
    return renamed(state, names, f"IGConv's {prefix!r}")


def _regrouped(published: State) -> State:
    """Amplitudes in the order of the waves. Published ones are those of all even waves, then of all odd ones."""
    amplitude = taken(published, "amplitude", "IGConv's 'skip.convs.'")
    even, odd = amplitude.chunk(2, dim=1)
    return published | {"amplitude": torch.stack([even, odd], dim=2).flatten(1, 2)}


def _encoder(state: State, encoder: Callable[..., tuple[Table, State]]) -> tuple[Table, State]:
    """EDSR as BasicSR names it, converted by way of its names in LIIF's published checkpoints."""
    if "conv_first.weight" not in state or not any(name.endswith(".conv1.weight") for name in state):
        raise ValueError("IGConv's encoder: only EDSR ('conv_first', 'body.0.conv1') is known")
    blocks = len({name.split(".")[1] for name in state if name.startswith("body.")})
    check_layers(blocks, state, "EDSR")
    names = {"conv_first": "head.0", "conv_after_body": f"body.{blocks}"}
    for i in range(blocks):
        names |= {f"body.{i}.conv1": f"body.{i}.body.0", f"body.{i}.conv2": f"body.{i}.body.2"}
    channels = _shape(state, "conv_after_body.weight", "")[0]
    arguments = {"n_resblocks": blocks, "n_feats": channels, "res_scale": _RESIDUAL_SCALE}
    return encoder({"name": "edsr", "args": arguments}, renamed(state, names, "IGConv's EDSR"))
