"""LINF (Yao et al., Local Implicit Normalizing Flow for Arbitrary-Scale Image Super-Resolution, CVPR 2023), at
temperature 0.

A normalizing flow gives the likelihood of a color, under conditions that a network computes from waves of the four
codes around the query, as in LTE. Rendering takes the color at the middle of the flow's normal distribution. The
decoder ``linf`` is trained by the likelihood of the true colors, its own objective. The model ``linf-patch`` has a flow
of the colors of 3 x 3 pixels together.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from liif_core import Component, Importer, LatentField, Maps, Sites, hookimpl
from liif_core.importing import State, check_layers, renamed, take_encoder
from liif_core.nn import expect_conditions
from liif_zoo.linf_flow import FlowNetwork, LINFOptions
from liif_zoo.linf_patch import PATCH, LINFPatch, PatchOptions


class LINF(nn.Module):
    """Codes, the query's offsets from them and its cell -> out_channels. The paper adds the bilinear LR image."""

    needs = frozenset({"coordinate", "cell"})
    num_statistics = 0
    scale_dependent = False
    radius = 1  # of the 3x3 convolutions in ``prepare``
    queries_at_once = 2048  # of fewer, laying out the first layer's weight for oneDNN takes too large a part

    def __init__(
        self, options: LINFOptions, in_channels: int, out_channels: int, conditions: Mapping[str, int], neighbours: int
    ):
        super().__init__()
        expect_conditions(conditions, coordinate=2, cell=2)
        self.network = FlowNetwork(
            in_channels, options.width, options.layers, options.flow_layers, out_channels, neighbours
        )

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        return self.network.maps(field.dense())

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        colors: Tensor = self.network(maps, sites, conditions["coordinate"], conditions["cell"][0])
        return colors

    def own_loss(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor], target: Tensor) -> Tensor:
        """The mean negative log-likelihood of the targets, in nats."""
        where = conditions["coordinate"], conditions["cell"][0]
        return self.network.surprise(maps, sites, *where, target).mean()


# Import


def _options(arguments: Mapping) -> dict:
    """The options that the decoder and the model share."""
    network = arguments["imnet_spec"]["name"]
    if network != "flow":
        raise ValueError(f"imnet {network!r}: only 'flow' is known")
    return {
        "width": arguments.get("hidden_dim", 256),
        "layers": arguments.get("num_layer", 3),
        "flow_layers": arguments.get("flow_layers", 10),
    }


def _network(state: State, options: Mapping, ours: str) -> State:
    """The published parameters, with our names, which begin with ``ours``."""
    names = {"coef": f"{ours}.coefficient", "freq": f"{ours}.frequency", "phase": f"{ours}.phase"}
    for n in range(options["layers"] + 1):
        names[f"layers.{2 * n}"] = f"{ours}.layers.{n}"
    last = options["flow_layers"]
    for n, layer in enumerate([*(f"linears.{n}" for n in range(last)), "last"]):
        names |= {f"imnet.{layer}.{part}": f"{ours}.flow.linears.{n}.{part.strip('_')}" for part in ("_weight", "bias")}
    # layers are 1x1 convolutions
    state = {n: v.flatten(1) if v.ndim == 4 and n.startswith("layers.") else v for n, v in state.items()}
    return renamed(state, names, "LINF")


def _checked(arguments: Mapping, state: State) -> dict:
    options = _options(arguments)
    check_layers(options["layers"] + options["flow_layers"], state, "LINF")
    return options


def _import_linf(arguments: dict, state: dict, encoder: Callable) -> tuple[dict, dict]:
    options = _checked(arguments, state)
    encoder_table, result, rest = take_encoder(arguments, state, encoder)
    table = {
        "residual": "bilinear",
        "encoder": encoder_table,
        "features": {"use": "identity"},
        "sampling": {"use": "local-ensemble"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": {"use": "linf"} | options,
    }
    return table, result | _network(rest, options, "decoder.network")


def _import_patch(arguments: dict, state: dict, encoder: Callable) -> tuple[dict, dict]:
    options, side = _checked(arguments, state), arguments.get("patch_size", PATCH)
    if side != PATCH:
        raise ValueError(f"patch_size: only patches of {PATCH} x {PATCH} pixels are known, got {side}")
    encoder_table, result, rest = take_encoder(arguments, state, encoder)
    if encoder_table["use"] != "edsr":
        raise ValueError(f"the encoder of 'linf-patch' is EDSR here, got {encoder_table['use']!r}")
    table = {f"encoder_{name}": value for name, value in encoder_table.items() if name != "use"}
    return {"use": "linf-patch"} | table | options, result | _network(rest, options, "network")


@hookimpl
def liif_decoders():
    return Component("linf", LINF, LINFOptions, lambda o: f"LINF {o.width}, {o.flow_layers} flow layers")


@hookimpl
def liif_models():
    return Component(
        "linf-patch",
        LINFPatch,
        PatchOptions,
        lambda o: f"EDSR {o.encoder_blocks}x{o.encoder_channels}, LINF {o.width} of patches",
    )


@hookimpl
def liif_importers():
    return [Importer("model", "linf", _import_linf), Importer("model", "linf-patch", _import_patch)]
