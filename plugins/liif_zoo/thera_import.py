"""The importer of Thera's published checkpoints: a pickle of the nested parameters of a Flax model."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from liif_core.importing import State, taken

MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K
VARIANCE = 0.25 + 1e-5
_ROOT = "params"

Table = dict[str, Any]


class _Published:
    """Published parameters by their path, which are removed as they are converted."""

    def __init__(self, tree: Mapping[str, Any]):
        self.tree = tree
        self.state: State = {}
        self._add(tree, _ROOT)

    def _add(self, tree: Mapping[str, Any], path: str) -> None:
        for name, value in tree.items():
            where = f"{path}/{name}"
            if isinstance(value, Mapping):
                self._add(value, where)
            elif isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
                self.state[where] = torch.from_numpy(value.astype(np.float32))
            else:
                kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
                raise ValueError(f"Thera: {where}: expected an array of numbers, got {kind}")

    def has(self, path: str) -> bool:
        """Whether there is such a part, a dictionary."""
        node: Any = self.tree
        for name in path.split("/"):
            node = node.get(name) if isinstance(node, Mapping) else None
        return isinstance(node, Mapping)

    def count(self, path: str, then: str = "") -> int:
        """How many parts there are whose path is ``path``, a number from 0 on, and ``then``."""
        number = 0
        while self.has(f"{path}{number}{then}"):
            number += 1
        return number

    def take(self, path: str, dims: int) -> Tensor:
        value = taken(self.state, f"{_ROOT}/{path}", "Thera")
        if value.ndim != dims:
            raise ValueError(
                f"Thera: {_ROOT}/{path}: expected an array of {dims} dimensions, got the shape {tuple(value.shape)}"
            )
        return value

    def convolution(self, path: str, name: str, bias: bool = True) -> State:
        """Flax stores kernels as (height, width, in, out)."""
        state = {f"{name}.weight": self.take(f"{path}/kernel", 4).permute(3, 2, 0, 1)}
        return state | ({f"{name}.bias": self.take(f"{path}/bias", 1)} if bias else {})

    def pointwise(self, path: str, name: str) -> State:
        """A 1x1 convolution as a linear layer."""
        state = self.convolution(path, name)
        if state[f"{name}.weight"].shape[2:] != (1, 1):
            shape = " x ".join(map(str, state[f"{name}.weight"].shape[2:]))
            raise ValueError(f"Thera: {_ROOT}/{path}/kernel: expected a kernel of 1 x 1, got {shape}")
        return state | {f"{name}.weight": state[f"{name}.weight"].flatten(1)}

    def dense(self, path: str, name: str) -> State:
        return {f"{name}.weight": self.take(f"{path}/kernel", 2).mT, f"{name}.bias": self.take(f"{path}/bias", 1)}

    def norm(self, path: str, name: str) -> State:
        return {f"{name}.weight": self.take(f"{path}/scale", 1), f"{name}.bias": self.take(f"{path}/bias", 1)}


def convert(content: Any, encoder: Callable[..., tuple[Table, State]]) -> tuple[Table, State] | None:
    """A ``[model]`` table and weights; None for content of another form."""
    tree = content.get("model") if isinstance(content, Mapping) else None
    tree = tree.get(_ROOT) if isinstance(tree, Mapping) else None
    if not isinstance(tree, Mapping) or not {"components", "out_conv", "k"} & tree.keys():
        return None
    published = _Published(tree)
    encoder_table, encoder_state = _encoder(published, content.get("backbone"), encoder)
    features_table, features_state = _features(published, content.get("size"))
    decoder_table, decoder_state = _decoder(published)
    if published.state:
        raise ValueError(f"Thera has no parameter for {min(published.state)!r}")
    table = {
        "channels": 3,
        "residual": "none",
        "input_mean": list(MEAN),
        "input_std": [VARIANCE**0.5],
        "encoder": encoder_table,
        "features": features_table,
        "sampling": {"use": "nearest", "ties": "away"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": decoder_table,
    }
    parts = {"encoder": encoder_state, "features": features_state, "decoder": decoder_state}
    return table, {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}


def _encoder(published: _Published, name: Any, encoder: Callable[..., tuple[Table, State]]) -> tuple[Table, State]:
    """The encoder, converted by way of its names in LIIF's published checkpoints."""
    name = name or ("rdn" if published.has("encoder/RDB_0") else "edsr-baseline")  # a trainer's checkpoints have none
    if name == "edsr-baseline":
        blocks = published.count("encoder/body/layers_", "/body")
        state = published.convolution("encoder/head/layers_0", "head.0")
        for i in range(blocks):
            for j in (0, 2):
                state |= published.convolution(f"encoder/body/layers_{i}/body/layers_{j}", f"body.{i}.body.{j}")
        state |= published.convolution(f"encoder/body/layers_{blocks}", f"body.{blocks}")
        return encoder({"name": name, "args": {"n_resblocks": blocks, "n_feats": len(state["head.0.bias"])}}, state)
    if name == "rdn":
        names = {"Conv_0": "SFENet1", "Conv_1": "SFENet2", "Conv_2": "GFF.0", "Conv_3": "GFF.1"}
        for i in range(published.count("encoder/RDB_")):
            names[f"RDB_{i}/Conv_0"] = f"RDBs.{i}.LFF"
            for j in range(published.count(f"encoder/RDB_{i}/RDB_Conv_")):
                names[f"RDB_{i}/RDB_Conv_{j}/Conv_0"] = f"RDBs.{i}.convs.{j}.conv.0"
        state = {}
        for path, ours in names.items():
            state |= published.convolution(f"encoder/{path}", ours)
        arguments = {"RDNconfig": "B", "G0": len(state["SFENet1.bias"])}
        return encoder({"name": name, "args": arguments}, state)
    raise ValueError(f"Thera with backbone {name!r}: only 'edsr-baseline' and 'rdn' are known")


def _features(published: _Published, size: Any) -> tuple[Table, State]:
    """What is between encoder and decoder, by its parameters; those of a trainer's checkpoint do not state the size."""
    if size not in (None, "air", "plus", "pro"):
        raise ValueError(f"Thera of size {size!r}: only 'air', 'plus' and 'pro' are known")
    found = "plus" if published.has("refine/layers_0") else "pro" if published.has("refine/Conv_0") else "air"
    if size not in (None, found):
        raise ValueError(f"Thera of size {size!r} has the parameters of {found!r}")
    return {"air": _air, "plus": _plus, "pro": _pro}[found](published)


def _air(published: _Published) -> tuple[Table, State]:
    return {"use": "identity"}, {}


def _plus(published: _Published) -> tuple[Table, State]:
    widths: list[int] = []
    state: State = {}
    for i in range(published.count("refine/layers_")):
        path, ours = f"refine/layers_{i}", f"layers.{i}"
        if published.has(f"{path}/Conv_0"):
            state |= published.norm(f"{path}/LayerNorm_0", f"{ours}.norm")
            state |= published.pointwise(f"{path}/Conv_0", f"{ours}.layer")
            continue
        path = f"{path}/residual"
        state |= published.convolution(f"{path}/layers_0", f"{ours}.spatial", bias=False)
        state |= published.norm(f"{path}/layers_1", f"{ours}.norm")
        state |= published.pointwise(f"{path}/layers_2", f"{ours}.first")
        state |= published.pointwise(f"{path}/layers_4", f"{ours}.second")
        widths.append(len(state[f"{ours}.norm.weight"]))
    return {"use": "convnext", "widths": widths}, state


def _pro(published: _Published) -> tuple[Table, State]:
    state = published.convolution("refine/Conv_0", "head")
    state |= published.norm("refine/PatchEmbed_0/LayerNorm_0", "head_norm")
    depths = []
    for i in range(published.count("refine/RSTB_")):
        depths.append(published.count(f"refine/RSTB_{i}/BasicLayer_0/SwinTransformerBlock_"))
        for j in range(depths[-1]):
            state |= _swin_block(published, f"refine/RSTB_{i}/BasicLayer_0/SwinTransformerBlock_{j}", (i, j))
        state |= published.convolution(f"refine/RSTB_{i}/Conv_0", f"groups.{i}.tail")
    state |= published.norm("refine/LayerNorm_0", "norm")
    state |= published.convolution("refine/Conv_1", "tail")
    state |= published.convolution("refine/Conv_2", "output")
    if not depths or min(depths) < 1:
        raise ValueError(f"Thera of size 'pro': expected Swin blocks in every group, got {depths}")
    width, first = len(state["head.bias"]), "groups.0.blocks.0"
    entries, heads = state[f"{first}.attention.position"].shape
    hidden = len(state[f"{first}.first.bias"])
    ratio = hidden / width
    table = {
        "use": "swin",
        "blocks": depths,
        "channels": width,
        "heads": heads,
        "window": (round(entries**0.5) + 1) // 2,
        "mlp_ratio": ratio if int(width * ratio) == hidden else (hidden + 0.5) / width,
        "out_channels": len(state["output.bias"]),
    }
    return table, state


def _swin_block(published: _Published, path: str, number: tuple[int, int]) -> State:
    ours = f"groups.{number[0]}.blocks.{number[1]}"
    attention = f"{path}/WindowAttention_0"
    position = published.take(f"{attention}/relative_position_bias_table", 2)
    return {
        **published.norm(f"{path}/LayerNorm_0", f"{ours}.attention_norm"),
        **published.dense(f"{attention}/qkv", f"{ours}.attention.qkv"),
        **published.dense(f"{attention}/proj", f"{ours}.attention.project"),
        f"{ours}.attention.position": position,
        **published.norm(f"{path}/LayerNorm_1", f"{ours}.mlp_norm"),
        **published.dense(f"{path}/Mlp_0/Dense_0", f"{ours}.first"),
        **published.dense(f"{path}/Mlp_0/Dense_1", f"{ours}.second"),
    }


def _decoder(published: _Published) -> tuple[Table, State]:
    frequency, diffusivity = published.take("components", 2), published.take("k", 0)
    layer = published.pointwise("out_conv", "code")
    waves = frequency.shape[1]
    if len(frequency) != 2 or len(layer["code.bias"]) != 4 * waves:
        raise ValueError(
            f"Thera: expected four numbers of a code for each wave: components {tuple(frequency.shape)} and "
            f"{len(layer['code.bias'])} numbers do not fit"
        )
    return {"use": "thera", "waves": waves}, {"frequency": frequency, "diffusivity": diffusivity, **layer}
