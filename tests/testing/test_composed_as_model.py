"""Composed models keep the contract of whole models, with every kind of encoder and decoder."""

import pytest
import torch
from parts import (
    CellCondition,
    CellDecoder,
    Decoder,
    Doubled,
    Encoder,
    Features,
    Halves,
    ImageDecoder,
    Patches,
    Sampling,
    StatisticsDecoder,
    WholeSetDecoder,
    failing,
)

from liif_core.model.composed import ComposedModel


class Coordinate(torch.nn.Module):
    channels, scope = 2, "query"

    def forward(self, query, sites, grid):
        return sites.offset


def composed(encoder, decoder, residual):
    def build(options, channels):
        first = encoder(None, channels)
        conditions = {"coordinate": Coordinate(), "cell": CellCondition(None)}
        features = Features(None, first.out_channels)
        last = decoder(None, 3, channels, 4, {"coordinate": 2, "cell": 2})
        return ComposedModel(first, features, Sampling(None), conditions, last, channels=channels, residual=residual)

    return build


@pytest.mark.filterwarnings("ignore::liif_core.testing.ContractWarning")
@pytest.mark.parametrize(
    "encoder, decoder, residual",
    [
        (Encoder, Decoder, "none"),
        (Encoder, Decoder, "bilinear"),
        (Patches, Decoder, "nearest"),
        (Halves, Decoder, "bilinear"),
        (Doubled, Decoder, "none"),
        (Encoder, StatisticsDecoder, "bilinear"),
        (Halves, StatisticsDecoder, "none"),
        (Encoder, WholeSetDecoder, "none"),
        (Encoder, CellDecoder, "none"),
        (Halves, ImageDecoder, "bilinear"),
    ],
)
def test_a_composed_model_keeps_the_contract(encoder, decoder, residual):
    assert failing("model", composed(encoder, decoder, residual)) == {}
