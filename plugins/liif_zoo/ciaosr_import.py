"""Importers of CiaoSR's published checkpoints: its authors' own form (of mmediting), and that of LIIF's envelope."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from liif_core.importing import State, mlp_names, renamed, take_encoder, taken

_Model = tuple[dict[str, Any], State]  # a [model] table, and weights with our names

MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K: subtracted from images, which are not divided
_PREFIX = "generator."
_NETWORKS = {"imnet_q": "query", "imnet_k": "key", "imnet_v": "value"}
_PROJECTIONS = {"conv_match_1": "query", "conv_match_2": "key", "conv_assembly": "value"}
_DOWN = {"down": 2, "downx3": 3, "downx4": 4}


def _shape(state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    shape = tuple(taken(dict(state), name, "CiaoSR").shape)
    if len(shape) != axes:
        raise ValueError(f"CiaoSR's {name!r} has {axes} axes; this one has the shape {shape}")
    return shape


def _layers(state: Mapping[str, Tensor], network: str) -> list[str]:
    """The names of a network's linear layers, in order."""
    names = sorted(mlp_names(state, f"{network}.layers", ""), key=lambda name: int(name.rpartition(".")[2]))
    if not names:
        raise ValueError(f"CiaoSR has parameters '{network}.layers', which are missing")
    return names


def _widths(state: Mapping[str, Tensor], network: str) -> list[int]:
    """The widths of a network's hidden layers."""
    return [_shape(state, f"{name}.weight", 2)[0] for name in _layers(state, network)[:-1]]


def _decoder_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    names = {"cs_attn.escape_NaN": "decoder.attention.smallest_norm"}
    for published, ours in _NETWORKS.items():
        names |= mlp_names(state, f"{published}.layers", f"decoder.{ours}_layers")
    for published, ours in _PROJECTIONS.items():
        names |= {f"cs_attn.{published}.{part}": f"decoder.attention.{ours}.{part}" for part in (0, 1)}
    return names | {f"cs_attn.{published}": f"decoder.attention.down.{scale}" for published, scale in _DOWN.items()}


def _decoder(state: Mapping[str, Tensor], scales: list[int], unfold: int) -> tuple[dict[str, Any], State]:
    """The ``[model.decoder]`` table, and the state of the decoder, of a published state without its encoder."""
    # "down" is in all published files, also of models that do not use it
    kept = {name: value for name, value in state.items() if 2 in scales or not name.startswith("cs_attn.down.")}
    widths = {ours: _widths(kept, published) for published, ours in _NETWORKS.items()}
    table = {"use": "ciaosr", **widths, "unfold": unfold, "scales": scales}
    return table, renamed(kept, _decoder_names(kept), "CiaoSR")


def _table(encoder: Mapping[str, Any], decoder: Mapping[str, Any], local_size: int, channels: int) -> dict[str, Any]:
    return {
        "channels": channels,
        "residual": "bilinear",
        "encoder": encoder,
        "features": {"use": "identity"},
        "sampling": {"use": "ciaosr", "local_size": local_size},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": decoder,
    }


def _out_channels(state: Mapping[str, Tensor]) -> int:
    return _shape(state, f"{_layers(state, 'imnet_q')[-1]}.weight", 2)[0]


def import_port(arguments: Mapping[str, Any], state: State, encoder: Callable[..., Any]) -> _Model:
    """A checkpoint in LIIF's envelope, whose images are normalized to [-1, 1]."""
    for network in _NETWORKS:
        if arguments[network]["name"] != "mlp":
            raise ValueError(f"{network} {arguments[network]['name']!r}: only 'mlp' is known")
    encoder_table, result, rest = take_encoder({"encoder_spec": arguments["encoder"]}, state, encoder)
    scales = list(arguments.get("multi_scale", [2])) if arguments.get("non_local_attn", True) else []
    decoder, converted = _decoder(rest, scales, 3 if arguments.get("feat_unfold", True) else 1)
    decoder["softmax_scale"] = float(arguments.get("softmax_scale", 1))
    return _table(encoder_table, decoder, arguments.get("local_size", 2), _out_channels(rest)), result | converted


def import_official(content: Any, encoder: Callable[..., Any]) -> _Model | None:
    """A checkpoint of mmediting. Sizes are in no other place than in the shapes of its parameters."""
    published = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(published, Mapping):
        return None
    own_part = {name: value for name, value in published.items() if str(name).startswith(_PREFIX)}
    state = {str(name).removeprefix(_PREFIX): value for name, value in own_part.items()}
    if not any(name.startswith("imnet_k.") for name in state):
        return None
    rest = {name: value for name, value in state.items() if name.startswith(("imnet_", "cs_attn."))}
    part = {name: value for name, value in state.items() if name not in rest}
    table, converted = _edsr(part) if "conv_first.weight" in part else _rdn(part)
    scales, unfold = _sizes(rest, table["channels"])
    decoder, own = _decoder(rest, scales, unfold)
    last = f"decoder.query_layers.{len(decoder['query'])}"
    for name in (f"{last}.weight", f"{last}.bias"):  # published colors are those of images in [0, 1], ours of [-1, 1]
        own[name] = 2 * taken(own, name, "CiaoSR")
    whole = _table(table, decoder, 2, _out_channels(rest)) | {"input_mean": list(MEAN), "input_std": [1.0]}
    return whole, {f"encoder.{name}": value for name, value in converted.items()} | own


def _sizes(state: Mapping[str, Tensor], channels: int) -> tuple[list[int], int]:
    """The scales of the non-local maps, and the side of the square of features that are joined."""
    keys, values = (_shape(state, f"{name}.layers.0.weight", 2)[1] for name in ("imnet_k", "imnet_v"))
    scales = [scale for name, scale in _DOWN.items() if f"cs_attn.{name}.weight" in state]
    count = (values - keys) // channels
    if scales[:1] == [2] and count == len(scales) - 1:  # "down" is there without being used
        scales = scales[1:]
    sides = {channels * side * side + 4: side for side in (1, 3)}
    if keys not in sides or count != len(scales) or (values - keys) % channels:
        raise ValueError(
            f"imnet_k reads {keys} numbers and imnet_v {values}, which do not fit features of {channels} channels and "
            f"non-local maps of the scales {scales}"
        )
    return scales, sides[keys]


def _edsr(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], State]:
    """EDSR as mmediting names it."""
    blocks = len({name.split(".")[1] for name in state if name.startswith("body.")})
    names = {"conv_first": "head", "conv_after_body": "tail"}
    for i in range(blocks):
        names |= {f"body.{i}.conv1": f"blocks.{i}.first", f"body.{i}.conv2": f"blocks.{i}.second"}
    table = {"use": "edsr", "blocks": blocks, "channels": _shape(state, "conv_first.weight", 4)[0]}
    return table, renamed(state, names, "CiaoSR's EDSR")


def _rdn(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], State]:
    """RDN as mmediting names it. Layers of a block are told apart by their shapes."""
    if "sfe1.weight" not in state:
        raise ValueError("CiaoSR's encoder: only EDSR ('conv_first') and RDN ('sfe1') are known")
    names = {"sfe1": "head", "sfe2": "entry", "gff.0": "fusion", "gff.1": "tail"}
    numbers = {name.split(".")[1] for name in state if name.startswith("rdbs.")}
    blocks = sorted(int(number) for number in numbers if number.isdecimal())
    layers, growth = 0, 0
    for i in blocks:
        own = {n.removesuffix(".weight"): v for n, v in state.items() if n.startswith(f"rdbs.{i}.") and v.ndim == 4}
        growing = sorted((name for name in own if own[name].shape[2:] == (3, 3)), key=lambda name: own[name].shape[1])
        names |= {name: f"blocks.{i}.layers.{j}" for j, name in enumerate(growing)}
        names |= {name: f"blocks.{i}.fusion" for name in own if own[name].shape[2:] == (1, 1)}
        layers, growth = max(layers, len(growing)), max([growth, *(len(own[name]) for name in growing)])
    table = {
        "use": "liif-rdn:rdn",
        "channels": _shape(state, "sfe1.weight", 4)[0],
        "blocks": len(blocks),
        "layers": layers,
        "growth": growth,
    }
    return table, renamed(state, names, "CiaoSR's RDN")
