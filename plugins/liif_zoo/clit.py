"""CLIT (Chen et al., Cascaded Local Implicit Transformer for Arbitrary-Scale Super-Resolution, CVPR 2023).

A query attends to the latent codes of a window around it, and a network reads all values, weighted but not summed, and
the cell. The decoder ``clit`` is one stage, the paper's LIT. The model ``clit-cascade`` has more, which read features
that are resampled to larger grids.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from liif_core import Component, Importer, LatentField, Maps, Sites, hookimpl
from liif_core.importing import State, check_layers, mlp_names, renamed, take_encoder, taken
from liif_core.nn import expect_conditions
from liif_zoo.clit_attention import CLITOptions, PositionBias, Stage
from liif_zoo.clit_cascade import CascadeOptions, CLITCascade
from liif_zoo.clit_window import Window, WindowOptions


class CLIT(nn.Module):
    """Codes of a window and, if there is that condition, the cell -> out_channels.

    The paper adds the bilinear LR image. Offsets come with the window (sampling "window"), not as a condition.
    """

    needs: frozenset[str] = frozenset()
    num_statistics = 0
    scale_dependent = False
    radius = 2  # of the two 3x3 convolutions in ``prepare``
    queries_at_once = 1 << 15

    def __init__(
        self, options: CLITOptions, in_channels: int, out_channels: int, conditions: Mapping[str, int], neighbours: int
    ):
        super().__init__()
        expect_conditions(conditions, cell=2)
        width, heads = options.width, options.heads
        self.entry = nn.Conv2d(in_channels, width, 3, padding=1)
        self.position = (
            PositionBias(options.position_channels, options.position_scale, heads)
            if options.position_channels
            else None
        )
        self.stage = Stage(width, heads, options.hidden, neighbours, "cell" in conditions, out_channels)

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        return self.stage.maps(self.entry(field.dense()))

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        cell = conditions["cell"][0] if "cell" in conditions else None
        colors: Tensor = self.stage(maps, sites, cell, self.position)
        return colors


# Import


def _attention(arguments: Mapping) -> dict:
    """The options that the decoder and the cascade share."""
    network = arguments["imnet_spec"]
    if network["name"] != "mlp" or network["args"].get("act") != "gelu":
        raise ValueError(
            f"imnet {network['name']!r} with act {network['args'].get('act')!r}: only an 'mlp' with 'gelu' is known"
        )
    table = {
        "width": arguments.get("base_dim", 256),
        "heads": arguments.get("head", 8),
        "hidden": list(network["args"]["hidden_list"]),
        "position_channels": 0,
    }
    position = arguments.get("pb_spec")
    if position is not None:
        known = position["name"], position["args"].get("posenc_type", "sinusoid")
        if known != ("posenc", "sinusoid"):
            raise ValueError(f"position bias {known[0]!r} of type {known[1]!r}: only 'posenc', 'sinusoid' is known")
        table["position_channels"] = position["args"]["enc_dims"]
        table["position_scale"] = float(position["args"]["posenc_scale"])
    return table


def _import_clit(arguments: dict, state: dict, encoder: Callable) -> tuple[dict, dict]:
    """One stage is a composed model; more are a cascade."""
    stages = arguments.get("imnet_num", 1)
    if arguments.get("conv_num", stages) != stages:
        raise ValueError(f"CLIT has as many imnets as convolutions, got {stages} and {arguments['conv_num']}")
    if not arguments.get("local_attn", True):
        raise ValueError("CLIT with local_attn = false is not known")
    check_layers(stages, state, "CLIT")
    encoder_table, result, rest = take_encoder(arguments, state, encoder)
    table, cell = _attention(arguments), arguments.get("is_cell", True)
    if table["position_channels"]:
        taken(rest, "pb_encoder.proj.bias", "CLIT")  # the same for all codes of a window: a softmax ignores it
    if stages > 1:
        if encoder_table["use"] != "edsr":
            raise ValueError(f"the encoder of a cascade is EDSR here, got {encoder_table['use']!r}")
        options = {f"encoder_{name}": value for name, value in encoder_table.items() if name != "use"}
        table |= {"use": "clit-cascade", "stages": stages, "radius": arguments.get("r", 3), "cell": cell} | options
        return table, result | _parts(rest, {i: f"stages.{i}" for i in range(stages)}, "")
    model = {
        "residual": "bilinear",
        "encoder": encoder_table,
        "features": {"use": "identity"},
        "sampling": {"use": "window", "radius": arguments.get("r", 3)},
        "conditioning": [{"use": "cell"}] if cell else [],
        "decoder": {"use": "clit"} | table,
    }
    return model, result | _parts(rest, {0: "decoder.stage"}, "decoder.")


def _parts(state: State, stages: Mapping[int, str], owner: str) -> State:
    names = {"conv_ch": f"{owner}entry", "pb_encoder.proj": f"{owner}position.layer"}
    for number, stage in stages.items():
        names |= {f"conv_{part[0]}s.{number}": f"{stage}.{part}" for part in ("query", "key", "value")}
        names |= mlp_names(state, f"imnets.{number}.layers", f"{stage}.layers")
    return renamed(state, names, "CLIT")


@hookimpl
def liif_samplings():
    return Component("window", Window, WindowOptions)


@hookimpl
def liif_decoders():
    return Component("clit", CLIT, CLITOptions, lambda o: f"CLIT {o.width} {'-'.join(map(str, o.hidden))}".rstrip())


@hookimpl
def liif_models():
    return Component(
        "clit-cascade",
        CLITCascade,
        CascadeOptions,
        lambda o: f"EDSR {o.encoder_blocks}x{o.encoder_channels}, cascade of {o.stages} CLIT {o.width}",
    )


@hookimpl
def liif_importers():
    return Importer("model", "clit", _import_clit)
