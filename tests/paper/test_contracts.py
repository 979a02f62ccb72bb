"""The default components keep the contracts that every plugin is checked for."""

from liif_core.testing import (
    ConditioningContract,
    DecoderContract,
    EncoderContract,
    FeaturesContract,
    SamplingContract,
)


class TestEDSR(EncoderContract):
    component = "liif-core:edsr"
    options = {"blocks": 2, "channels": 6, "residual_scale": 0.5}


class TestUnfold(FeaturesContract):
    component = "liif-core:unfold"


class TestUnfoldWide(FeaturesContract):
    component = "liif-core:unfold"
    options = {"size": 7}


class TestPlain(FeaturesContract):
    component = "liif-core:identity"


class TestNearest(SamplingContract):
    component = "liif-core:nearest"


class TestLocalEnsemble(SamplingContract):
    component = "liif-core:local-ensemble"


class TestCoordinate(ConditioningContract):
    component = "liif-core:coordinate"


class TestCell(ConditioningContract):
    component = "liif-core:cell"


class TestCellOfAtMost(ConditioningContract):
    component = "liif-core:cell"
    options = {"max_scale": 4}


class TestMLP(DecoderContract):
    component = "liif-core:mlp"
    options = {"hidden": [16, 8]}


class TestMLPZeroLast(DecoderContract):
    component = "liif-core:mlp"
    options = {"hidden": [8], "zero_last": True}


class TestMLPLinear(DecoderContract):
    component = "liif-core:mlp"
    options = {"hidden": []}
    neighbours = 1
    conditions = {}
    out_channels = 1
