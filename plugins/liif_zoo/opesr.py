"""OPE-SR (Song et al., OPE-SR: Orthogonal Position Encoding for Designing a Parameter-free Upsampling Module in
Arbitrary-scale Image Super-Resolution, CVPR 2023).

A code holds the coefficients of a two-dimensional Fourier series on its neighborhood, so that the decoder has no
parameters. The series is separable: at a pixel grid, its functions of y are computed once per row, and those of x once
per column. In OPE-SR's second variant, a 3x3 convolution computes the coefficients from features of any width.
"""

import math
from collections.abc import Callable, Mapping

import torch
from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import Component, Importer, LatentField, Maps, Sites, as_rows, blend, gather, hookimpl, option
from liif_core.importing import taken
from liif_core.nn import expect_conditions, fused_conv


@frozen
class OPEOptions:
    max_freq: int = option(
        "Largest frequency n of the series. A code has (2 n + 1)^2 coefficients for each color, which is the number of "
        "channels that the encoder or 'projection' must give.",
        3,
        check=ge(0),
        quick=1,
    )


def basis(offset: Tensor, max_freq: int) -> Tensor:
    """The orthogonal functions of one axis, (..., 2 * max_freq + 1), at offsets (...), float32.

    In order: 1, then sqrt(2) cos(f pi t / 2) and sqrt(2) sin(f pi t / 2) for f = 1, 2, ...
    """
    with torch.autocast(offset.device.type, enabled=False):
        angle = offset.float().unsqueeze(-1) * (torch.arange(1, max_freq + 1, device=offset.device) * (math.pi / 2))
        waves = torch.stack([angle.cos(), angle.sin()], dim=-1).flatten(-2) * math.sqrt(2)
        return torch.cat(
            [torch.ones_like(waves[..., :1]) if max_freq else offset.new_ones(*offset.shape, 1), waves], -1
        )


class OPE(nn.Module):
    """Coefficients and the query's offset from their code -> out_channels. It has no parameters.

    The channels of a code are, for each color, a matrix with a row for each function of y and a column for each of x.
    """

    needs = frozenset({"coordinate"})
    num_statistics = 0
    scale_dependent = False
    radius = 0
    block_positions = 262144

    def __init__(
        self, options: OPEOptions, in_channels: int, out_channels: int, conditions: Mapping[str, int], neighbours: int
    ):
        super().__init__()
        expect_conditions(conditions, coordinate=2)
        self.max_freq = options.max_freq
        functions = 2 * options.max_freq + 1
        self.shape = out_channels, functions, functions
        if in_channels != math.prod(self.shape):
            raise ValueError(
                f"max_freq {options.max_freq} needs codes of {out_channels} x {functions}^2 = {math.prod(self.shape)} "
                f"channels, got {in_channels}: give the encoder that many, or use the features 'projection'"
            )

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        return {"coefficient": as_rows(field.dense()).float()}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        coefficient = gather(maps["coefficient"], sites.index).unflatten(-1, (self.shape[0], -1))
        down, across = (basis(conditions["coordinate"][..., axis], self.max_freq) for axis in (0, 1))
        products = (down.unsqueeze(-1) * across.unsqueeze(-2)).flatten(-2)
        return blend((coefficient * products.unsqueeze(-2)).sum(-1), sites.weight)

    def axis_functions(self, axis: int, offsets: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return basis(offsets, self.max_freq).unsqueeze(0)

    def decode_block(self, maps: Maps, rows: Tensor, columns: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        coefficient = maps["coefficient"].unflatten(-1, self.shape)
        down, across = basis(rows, self.max_freq), basis(columns, self.max_freq)
        with torch.autocast(coefficient.device.type, enabled=False):
            # p and q: functions of y and of x; r and s: positions along y and x
            of_columns = torch.einsum("bhwcpq,wsq->bhwcps", coefficient, across)
            return torch.einsum("bhwcps,hrp->bhwrsc", of_columns, down)


@frozen
class ProjectionOptions:
    channels: int = option("Channels of a code.", 147, check=ge(1), quick=27)


class ProjectedField(LatentField):
    """Codes computed by a 3x3 convolution."""

    def __init__(self, features: Tensor, layer: nn.Conv2d):
        self.features = features
        self.layer = layer
        self.channels = layer.out_channels

    def dense(self) -> Tensor:
        return fused_conv(self.features, self.layer)


class Projection(nn.Module):
    """Features (B, C, h, w) -> a field of ``channels``, by one 3x3 convolution."""

    radius = 1

    def __init__(self, options: ProjectionOptions, in_channels: int):
        super().__init__()
        self.channels = options.channels
        self.layer = nn.Conv2d(in_channels, options.channels, 3, padding=1)

    def forward(self, features: Tensor) -> ProjectedField:
        return ProjectedField(features, self.layer)


_COLORS = "RGB"


def _import_ope(arguments: dict, state: dict, encoder: Callable, *, adapted: bool) -> tuple[dict, dict]:
    owner = "OPE-SR"
    spec = {**arguments["srnet_spec"], "name": arguments["srnet_spec"]["name"].removeprefix("adaptive-")}
    table, converted = encoder(spec, {k.removeprefix("srnet."): v for k, v in state.items() if k.startswith("srnet.")})
    rest = {name: value for name, value in state.items() if not name.startswith("srnet.")}
    result = {f"encoder.{name}": value for name, value in converted.items()}
    max_freq = arguments["max_freq"]
    features = {"use": "identity"}
    if adapted:
        features = {"use": "projection", "channels": len(_COLORS) * (2 * max_freq + 1) ** 2}
        for part in ("weight", "bias"):
            values = [taken(rest, f"adapt_{color}.{part}", owner) for color in _COLORS]
            result[f"features.layer.{part}"] = torch.cat(values)
    if rest:
        raise ValueError(f"{owner} has no parameter for {min(rest)!r}")
    return {
        "encoder": table,
        "features": features,
        "sampling": {"use": "local-ensemble"},
        "conditioning": [{"use": "coordinate"}],
        "decoder": {"use": "opesr", "max_freq": max_freq},
    }, result


@hookimpl
def liif_features():
    return Component("projection", Projection, ProjectionOptions, lambda o: f"projection to {o.channels}")


@hookimpl
def liif_decoders():
    return Component("opesr", OPE, OPEOptions, lambda o: f"OPE-SR n={o.max_freq}")


@hookimpl
def liif_importers():
    def importer(name: str, adapted: bool) -> Importer:
        return Importer("model", name, lambda *given: _import_ope(*given, adapted=adapted))

    return [importer("OPE-net", adapted=False), importer("OPE-net-adapt", adapted=True)]
