"""The MLP decoder of LIIF: the latent code and the conditions are concatenated and pass linear layers with ReLU.

A linear layer of concatenated inputs is a sum of linear layers, so the part of the first layer that reads the code is
computed once per code in ``prepare``, and a query gathers its result. Blending the neighbours is linear and its weights
sum to 1, so it is done before the last layer. Both are exact.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
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
from liif_core.importing import mlp_names, mlp_widths, renamed, take_encoder
from liif_core.nn import float32_linear, fused_linear


@frozen
class MLPOptions:
    hidden: tuple[int, ...] = option(
        "Widths of the hidden layers.", (256, 256, 256, 256), check=deep_iterable(ge(1)), quick=(32, 32)
    )
    zero_last: bool = option(
        "Initialize the last layer with zeros, so that training starts from the residual.", False, quick=True
    )


class MLP(nn.Module):
    """Codes (in_channels) and all conditions, in the order of the experiment -> out_channels."""

    needs: frozenset[str] = frozenset()
    num_statistics = 0
    scale_dependent = False
    radius = 0

    def __init__(
        self, options: MLPOptions, in_channels: int, out_channels: int, conditions: Mapping[str, int], neighbours: int
    ):
        super().__init__()
        self.in_channels = in_channels
        self.conditions = tuple(conditions)
        widths = [in_channels + sum(conditions.values()), *options.hidden, out_channels]
        self.layers: Any = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        if options.zero_last:
            for parameter in self.layers[-1].parameters():
                nn.init.zeros_(parameter)

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        first = self.layers[0]
        return {"code": as_rows(field.linear(first.weight[:, : self.in_channels], first.bias))}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        hidden = gather(maps["code"], sites.index)
        if self.conditions:
            hidden = self._with_conditions(hidden, self._joined(hidden.shape[:-1], conditions))
        if len(self.layers) == 1:
            return blend(hidden, sites.weight)
        hidden = hidden.relu_()
        for layer in self.layers[1:-1]:
            hidden = fused_linear(hidden, layer.weight, layer.bias, "relu")
        return float32_linear(blend(hidden, sites.weight), self.layers[-1].weight, self.layers[-1].bias)

    def _with_conditions(self, hidden: Tensor, given: Tensor) -> Tensor:
        """``hidden`` plus the first layer's part that reads the conditions, in float32 under autocast too."""
        weight = self.layers[0].weight[:, self.in_channels :]
        with torch.autocast(hidden.device.type, enabled=False):
            if hidden.dtype == torch.float32:  # in place: one pass over the gathered values
                hidden.view(-1, hidden.shape[-1]).addmm_(given.view(-1, given.shape[-1]), weight.t())
                return hidden
            return hidden + F.linear(given, weight.float()).to(hidden.dtype)

    def _joined(self, shape: torch.Size, conditions: Mapping[str, Tensor]) -> Tensor:
        parts = (conditions[name].float() for name in self.conditions)
        return torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], dim=-1)


def _import_liif(arguments: dict, state: dict, encoder: Callable) -> tuple[dict, dict]:
    """The published LIIF: an encoder, and an ``imnet`` that is this MLP."""
    encoder_table, result, rest = take_encoder(arguments, state, encoder)
    table = {
        "channels": arguments["imnet_spec"]["args"].get("out_dim", 3),
        "encoder": encoder_table,
        "features": {"use": "unfold", "size": 3} if arguments.get("feat_unfold", True) else {"use": "identity"},
        "sampling": {"use": "local-ensemble" if arguments.get("local_ensemble", True) else "nearest"},
        "conditioning": [{"use": "coordinate"}] + ([{"use": "cell"}] if arguments.get("cell_decode", True) else []),
        "decoder": {"use": "mlp", "hidden": mlp_widths(arguments, "imnet")},
    }
    return table, result | renamed(rest, mlp_names(rest, "imnet.layers", "decoder.layers"), "LIIF")


@hookimpl
def liif_decoders():
    return Component("mlp", MLP, MLPOptions, lambda o: f"MLP {'-'.join(map(str, o.hidden)) or 'linear'}")


@hookimpl
def liif_importers():
    return Importer("model", "liif", _import_liif)
