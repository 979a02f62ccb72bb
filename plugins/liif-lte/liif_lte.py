"""LTE (Lee and Jin, Local Texture Estimator for Implicit Representation Function, CVPR 2022): each code's texture as
waves, whose coefficients and frequencies are estimated from the features."""

import math
from collections.abc import Mapping

import torch
from attrs import frozen
from attrs.validators import deep_iterable, ge
from torch import Tensor, nn

from liif_core import (
    Component,
    Importer,
    LatentField,
    Maps,
    Sites,
    as_rows,
    blend,
    gather,
    hookimpl,
    option,
)


def _even(instance, attribute, value: int) -> None:
    if value < 2 or value % 2:
        raise ValueError(f"expected an even number from 2, half of it waves, got {value}")


@frozen
class LTEOptions:
    channels: int = option("Channels of the coefficients and of the frequencies: even.", 256, check=_even)
    hidden: tuple[int, ...] = option("Widths of hidden layers.", (256,) * 3, check=deep_iterable(ge(1)))


class LTE(nn.Module):
    """Codes, the query's offset from them and its cell -> out_channels. Its paper adds the bilinear LR image to that."""

    needs = frozenset({"coordinate", "cell"})
    pointwise = True
    scale_dependent = False
    radius = 1  # of the 3x3 convolutions in ``prepare``

    def __init__(
        self, options: LTEOptions, in_channels: int, out_channels: int, conditions: Mapping[str, int], neighbours: int
    ):
        super().__init__()
        self.coefficient = nn.Conv2d(in_channels, options.channels, 3, padding=1)
        self.frequency = nn.Conv2d(in_channels, options.channels, 3, padding=1)
        self.phase = nn.Linear(2, options.channels // 2, bias=False)
        widths = [options.channels, *options.hidden, out_channels]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def prepare(self, field: LatentField, cell: Tensor) -> Maps:
        codes = field.dense()
        return {"coefficient": as_rows(self.coefficient(codes)), "frequency": as_rows(self.frequency(codes))}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        with torch.autocast(sites.index.device.type, enabled=False):  # half precision has too few digits for a phase
            waves = self._waves(gather(maps["frequency"], sites.index), conditions["coordinate"], conditions["cell"])
            hidden = gather(maps["coefficient"], sites.index) * waves
        for layer in self.layers[:-1]:
            hidden = layer(hidden).relu_()
        return self.layers[-1](blend(hidden, sites.weight))  # the last layer is linear, and the weights sum to 1

    def _waves(self, frequency: Tensor, offset: Tensor, cell: Tensor) -> Tensor:
        """(K, B, *Q, channels): cos and sin of each wave at the query. Frequencies come in pairs, (y, x)."""
        pairs = frequency.float().unflatten(-1, (-1, 2)) * offset.unsqueeze(-2)
        angle = math.pi * (pairs.sum(-1) + self.phase(cell))
        return torch.cat([angle.cos(), angle.sin()], dim=-1)


def _import_lte(arguments: dict, state: dict, encoder) -> tuple[dict, dict]:
    """The published LTE, with any published encoder."""
    part = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    encoder_table, encoder_state = encoder(arguments["encoder_spec"], part)
    imnet = arguments["imnet_spec"]
    if imnet["name"] != "mlp":
        raise ValueError(f"imnet {imnet['name']!r}: only 'mlp' is known")
    table = {
        "channels": imnet["args"].get("out_dim", 3),
        "residual": "bilinear",
        "encoder": encoder_table,
        "features": {"use": "plain"},
        "sampling": {"use": "local-ensemble"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": {
            "use": "liif-lte:lte",
            "channels": arguments.get("hidden_dim", 256),
            "hidden": list(imnet["args"]["hidden_list"]),
        },
    }
    result = {f"encoder.{name}": value for name, value in encoder_state.items()}
    ours = {"coef": "coefficient", "freq": "frequency", "phase": "phase"}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if name.startswith("imnet.layers."):
            layer, part = name.removeprefix("imnet.layers.").split(".")
            result[f"decoder.layers.{int(layer) // 2}.{part}"] = value  # the odd ones were activations
        elif first in ours:
            result[f"decoder.{ours[first]}.{rest}"] = value
        elif first != "encoder":
            raise ValueError(f"LTE has no parameter for {name!r}")
    return table, result


@hookimpl
def liif_decoders():
    return Component("lte", LTE, LTEOptions)


@hookimpl
def liif_importers():
    return Importer("model", "lte", _import_lte)
