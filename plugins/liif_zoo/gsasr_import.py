"""The importer of GSASR's published checkpoints: a folder with ``encoder.pth`` and ``decoder.pth``."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from liif_core.importing import State, taken

Table = dict[str, Any]

FILES = ("encoder.pth", "decoder.pth")
_HEADS = ("sigma", "rho", "alpha", "rgb", "mean")
_MARKS = ("gs_embedding", "window_crossattn_blocks.0.norm.weight", "mlp_block_sigma.0.weight")  # of its decoders


class _Published:
    """The parameters of one file, which are removed as they are converted."""

    def __init__(self, state: Mapping[Any, Any], file: str):
        self.file = f"GSASR: {file}"
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise ValueError(f"{self.file}: {name!r}: expected a tensor, got {type(value).__name__}")
        self.state: State = dict(state)

    def take(self, name: str, dims: int) -> Tensor:
        value = taken(self.state, name, self.file)
        if value.ndim != dims:
            raise ValueError(f"{self.file}: {name}: expected {dims} dimensions, got the shape {tuple(value.shape)}")
        return value

    def drop(self, *names: str) -> None:
        """Parameters without effect, which the published code has and does not use."""
        for name in names:
            self.state.pop(f"{name}.weight", None)
            self.state.pop(f"{name}.bias", None)

    def layer(self, published: str, ours: str, dims: int) -> State:
        return {f"{ours}.weight": self.take(f"{published}.weight", dims), f"{ours}.bias": self.bias(published)}

    def bias(self, published: str) -> Tensor:
        return self.take(f"{published}.bias", 1)

    def count(self, prefix: str) -> int:
        """How many parts are called ``prefix`` and a number, from 0 on."""
        found = {name.removeprefix(prefix).split(".")[0] for name in self.state if name.startswith(prefix)}
        return next(i for i in range(len(found) + 1) if str(i) not in found)

    def check_empty(self) -> None:
        if self.state:
            raise ValueError(f"{self.file}: GSASR has no parameter for {min(self.state)!r}")


def convert(content: Any, encoder: Callable[..., tuple[Table, State]]) -> tuple[Table, State] | None:
    """A ``[model]`` table and weights; None for content of another form."""
    if not isinstance(content, Mapping):
        return None
    given = {file: _parameters(content[file]) for file in FILES if file in content}
    ours = any(mark in (given.get("decoder.pth") or {}) for mark in _MARKS)
    if "decoder.pth" not in content and (state := given.get("encoder.pth")) is not None:
        ours = "conv_first.weight" in state
    if not ours:
        return None
    parts = {}
    for file in FILES:
        if file not in content:
            raise ValueError(f"GSASR is published as a folder with {' and '.join(FILES)}; {file} is missing")
        state = given[file]
        if state is None:
            raise ValueError(f"GSASR: {file}: expected {{'params_ema': weights}}")
        parts[file] = _Published(state, file)
    encoder_table, encoder_state = _encoder(parts["encoder.pth"])
    table, state = _decoder(parts["decoder.pth"])
    expected, found = encoder_table["encoder_width"], state["network.features.0.weight"].shape[1]
    if found != expected:
        raise ValueError(
            f"GSASR: decoder.pth: img_feat_proj.0.weight: expected {expected} input channels, as many as encoder.pth "
            f"has, got {found}"
        )
    return {"use": "gsasr", **table, **encoder_table}, state | encoder_state


def _parameters(content: Any) -> Mapping[Any, Any] | None:
    """The averaged weights of a file, or the last ones where it has no others."""
    for name in ("params_ema", "params"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            return content[name]
    return None


def _encoder(published: _Published) -> tuple[Table, State]:
    if "conv_first.weight" not in published.state:
        raise ValueError(f"{published.file}: expected an EDSR, whose first parameter is 'conv_first.weight'")
    blocks = published.count("body.")
    state = published.layer("conv_first", "encoder.head", 4)
    for i in range(blocks):
        state |= published.layer(f"body.{i}.conv1", f"encoder.blocks.{i}.first", 4)
        state |= published.layer(f"body.{i}.conv2", f"encoder.blocks.{i}.second", 4)
    state |= published.layer("conv_after_body", "encoder.tail", 4)
    published.check_empty()
    weight = state["encoder.head.weight"]
    return {"channels": weight.shape[1], "encoder_blocks": blocks, "encoder_width": weight.shape[0]}, state


def _decoder(published: _Published) -> tuple[Table, State]:
    enhanced = any(name.endswith(".rope_freqs") for name in published.state)
    seeds, position = published.take("gs_embedding", 2), published.take("pos_embedding", 2)
    window, width = round(len(seeds) ** 0.5), seeds.shape[1]
    if window**2 != len(seeds) or position.shape != seeds.shape:
        raise ValueError(
            f"{published.file}: gs_embedding, pos_embedding: expected the tokens of a square window, of one shape, got "
            f"{tuple(seeds.shape)} and {tuple(position.shape)}"
        )
    state = {"network.seeds": seeds, "network.position": position}
    for ours, theirs in (("features", "img_feat_proj"), ("up", "UPNet")):
        for i in range(2):
            state |= published.layer(f"{theirs}.{2 * i}", f"network.{ours}.{i}", 4)
    for i in range(2):
        state |= published.layer(f"scale_mlp.{2 * i}", f"network.scale.{i}", 2)
    for i, name in enumerate(_HEADS):
        for j in range(3):
            state |= published.layer(f"mlp_block_{name}.{2 * j}", f"network.heads.{i}.{j}", 2)
    if enhanced:
        state |= published.layer("conv_final", "network.final", 4)
    layers: dict[str, list[int]] = {"cross": [], "self": []}
    for kind, theirs in (("cross", "window_crossattn_blocks"), ("self", "gs_selfattn_blocks")):
        for i in range(published.count(f"{theirs}.")):
            block, ours = f"{theirs}.{i}", f"network.{kind}_blocks.{i}"
            state |= published.layer(f"{block}.norm", f"{ours}.norm", 1)
            for j in range(2):
                state |= published.layer(f"{block}.mlp.{2 * j}", f"{ours}.mlp.{j}", 2)
            if enhanced:
                state |= published.layer(f"{block}.conv", f"{ours}.conv", 4)
            layers[kind].append(published.count(f"{block}.blocks."))
            for j in range(layers[kind][-1]):
                state |= _layer(published, f"{block}.blocks.{j}", f"{ours}.layers.{j}", kind, enhanced, window)
    published.check_empty()
    if not layers["cross"] or 0 in layers["cross"] + layers["self"]:
        raise ValueError(
            f"{published.file}: expected layers in every block, got {layers['cross']} and {layers['self']}"
        )
    first = "network.cross_blocks.0.layers.0"
    heads = state[f"{first}.attention.{'frequency' if enhanced else 'bias'}"].shape[1]
    table = {
        "variant": "enhanced" if enhanced else "paper",
        "width": width,
        "heads": heads,
        "window": window,
        "hidden": len(state[f"{first}.after_scale.layers.0.bias"]),
        "cross": layers["cross"],
        "attention": layers["self"],
    }
    return table, state


_NAMES = {  # of the norm and the perceptron after the scale, of the attention and its norm, of those after it, unused
    "cross": ("norm2", "mlp_crossattn_scale", "window_cross_attn", "norm3", "norm4", "mlp_crossattn_feature", "norm1"),
    "self": ("norm4", "mlp_crossattn", "gs_self_attn", "norm1", "norm2", "mlp_selfattn", "norm3"),
}


def _layer(published: _Published, theirs: str, ours: str, kind: str, enhanced: bool, window: int) -> State:
    norm, perceptron, attention, attention_norm, last_norm, last, unused = _NAMES[kind]
    scale = f"{theirs}.gs_cross_attn_scale"
    # attention to a single vector: queries and keys have no effect
    weight, bias = published.take(f"{scale}.in_proj_weight", 2), published.take(f"{scale}.in_proj_bias", 1)
    state = {
        f"{ours}.scale.weight": weight[2 * len(weight) // 3 :].clone(),
        f"{ours}.scale.bias": bias[2 * len(bias) // 3 :].clone(),
        **published.layer(f"{scale}.out_proj", f"{ours}.scale_output", 2),
        **published.layer(f"{theirs}.{norm}", f"{ours}.after_scale.norm", 1),
        **published.layer(f"{theirs}.{attention_norm}", f"{ours}.norm", 1),
        **published.layer(f"{theirs}.{last_norm}", f"{ours}.after_attention.norm", 1),
    }
    for name, part in ((perceptron, "after_scale"), (last, "after_attention")):
        for i in range(2):
            state |= published.layer(f"{theirs}.{name}.fc{i + 1}", f"{ours}.{part}.layers.{i}", 2)
    attention, into = f"{theirs}.{attention}", f"{ours}.attention"
    for name, part in (("qhead", "query"), ("khead", "key"), ("vhead", "value"), ("proj", "project")):
        state |= published.layer(f"{attention}.{name}", f"{into}.{part}", 2)
    published.drop(f"{theirs}.{unused}")
    if enhanced:
        state[f"{into}.frequency"] = published.take(f"{attention}.rope_freqs", 3)
        state[f"{into}.columns"] = published.take(f"{attention}.rope_t_x", 1)
        state[f"{into}.rows"] = published.take(f"{attention}.rope_t_y", 1)
        return state
    state[f"{into}.bias"] = published.take(f"{attention}.relative_position_bias_table", 2)
    name = f"{attention}.relative_position_index"
    index = state[f"{into}.index"] = published.take(name, 2)
    entries = len(state[f"{into}.bias"])
    if index.is_floating_point() or (index.numel() and not 0 <= int(index.min()) <= int(index.max()) < entries):
        raise ValueError(f"{published.file}: {name}: expected whole numbers from 0 to {entries - 1}")
    tokens = window**2
    if index.shape != torch.Size([tokens, tokens]):
        raise ValueError(
            f"{published.file}: {name}: expected {tokens} x {tokens}, as gs_embedding has {tokens} tokens, got "
            f"{' x '.join(map(str, index.shape))}"
        )
    return state
