"""LTE (Lee and Jin, Local Texture Estimator for Implicit Representation Function, CVPR 2022).

LTE+ is the same network; its checkpoints store frequencies in another order: all of y, then all of x, instead of pairs.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from attrs import frozen
from attrs.validators import deep_iterable, ge
from torch import Tensor, nn

from liif_core import Component, Importer, LatentField, Maps, Sites, as_rows, blend, gather, hookimpl, option
from liif_core.importing import mlp_names, mlp_widths, renamed, take_encoder
from liif_core.nn import (
    expect_conditions,
    float32_linear,
    fourier_block,
    fourier_features,
    fused_linear,
    phases,
    y_then_x,
)


def even(instance: object, attribute: object, value: int) -> None:
    """A check of an option. Raises ValueError."""
    if value < 2 or value % 2:
        raise ValueError(f"expected an even number from 2, got {value}")


@frozen
class LTEOptions:
    channels: int = option("Channels of the coefficients and of the frequencies; even.", 256, check=even, quick=32)
    hidden: tuple[int, ...] = option(
        "Widths of the hidden layers.", (256, 256, 256), check=deep_iterable(ge(1)), quick=(32, 32)
    )


class LTE(nn.Module):
    """Codes, the query's offset from them and its cell -> out_channels. The paper adds the bilinear LR image."""

    needs = frozenset({"coordinate", "cell"})
    num_statistics = 0
    scale_dependent = False
    radius = 1  # of the 3x3 convolutions in ``prepare``
    block_positions = 8192

    def __init__(
        self, options: LTEOptions, in_channels: int, out_channels: int, conditions: Mapping[str, int], neighbours: int
    ):
        super().__init__()
        expect_conditions(conditions, coordinate=2, cell=2)
        self.coefficient = nn.Conv2d(in_channels, options.channels, 3, padding=1)
        self.frequency = nn.Conv2d(in_channels, options.channels, 3, padding=1)  # in pairs (y, x)
        self.phase = nn.Linear(2, options.channels // 2, bias=False)
        widths = [options.channels, *options.hidden, out_channels]
        self.layers: Any = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        codes = field.dense()
        assert self.frequency.bias is not None
        frequency = F.conv2d(codes, y_then_x(self.frequency.weight), y_then_x(self.frequency.bias), padding=1)
        return {"coefficient": as_rows(self.coefficient(codes)), "frequency": as_rows(frequency)}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        coefficient, frequency = (gather(maps[name], sites.index) for name in ("coefficient", "frequency"))
        phase = phases(conditions["cell"], self.phase.weight)
        hidden = fourier_features(coefficient, frequency, conditions["coordinate"], phase)
        for layer in self.layers[:-1]:
            hidden = fused_linear(hidden, layer.weight, layer.bias, "relu")
        # the last layer is linear, and the weights sum to 1
        return float32_linear(blend(hidden, sites.weight), self.layers[-1].weight, self.layers[-1].bias)

    def decode_block(self, maps: Maps, rows: Tensor, columns: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        phase = phases(conditions["cell"], self.phase.weight)
        hidden = fourier_block(maps["coefficient"], maps["frequency"], rows, columns, phase)
        for layer in self.layers[:-1]:
            hidden = fused_linear(hidden, layer.weight, layer.bias, "relu")
        return float32_linear(hidden, self.layers[-1].weight, self.layers[-1].bias)


def _table(encoder: dict, channels: int, width: int, hidden: list[int]) -> dict:
    return {
        "channels": channels,
        "residual": "bilinear",
        "encoder": encoder,
        "features": {"use": "identity"},
        "sampling": {"use": "local-ensemble"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": {"use": "lte", "channels": width, "hidden": hidden},
    }


_NAMES = {"coef": "decoder.coefficient", "freq": "decoder.frequency", "phase": "decoder.phase"}


def _import_lte(arguments: dict, state: dict, encoder: Callable) -> tuple[dict, dict]:
    encoder_table, result, rest = take_encoder(arguments, state, encoder)
    channels = arguments["imnet_spec"]["args"].get("out_dim", 3)
    table = _table(encoder_table, channels, arguments.get("hidden_dim", 256), mlp_widths(arguments, "imnet"))
    return table, result | renamed(rest, _NAMES | mlp_names(rest, "imnet.layers", "decoder.layers"), "LTE")


def _import_lte_plus(arguments: dict, state: dict, encoder: Callable) -> tuple[dict, dict]:
    """Published LTE+ has 1x1 convolutions, all of one width, instead of linear layers."""
    encoder_table, result, rest = take_encoder(arguments, state, encoder)
    width = arguments.get("hidden_dim", 256)
    table = _table(encoder_table, arguments.get("out_dim", 3), width, [width] * arguments.get("num_layer", 3))
    decoder = renamed(rest, _NAMES | mlp_names(rest, "layers", "decoder.layers"), "LTE+")
    for name, value in decoder.items():
        if name.startswith("decoder.frequency."):
            decoder[name] = value.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)  # from all y, all x to pairs
        elif name.startswith("decoder.layers.") and value.ndim == 4:
            decoder[name] = value.flatten(1)
    return table, result | decoder


@hookimpl
def liif_decoders():
    return Component("lte", LTE, LTEOptions, lambda o: f"LTE {o.channels} {'-'.join(map(str, o.hidden))}".rstrip())


@hookimpl
def liif_importers():
    return [Importer("model", "lte", _import_lte), Importer("model", "lte-fast", _import_lte_plus)]
