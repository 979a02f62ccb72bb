"""The components of the lineage keep the contracts that every plugin is checked for."""

from liif_core.testing import DecoderContract, SamplingContract


class TestCorner(SamplingContract):
    component = "liif-core:corner"


class TestMetaSR(DecoderContract):
    component = "liif-core:metasr"
    options = {"hidden": 8}
    neighbours = 1


class TestMetaSRBlended(DecoderContract):
    component = "liif-core:metasr"
    options = {"hidden": 5}


class TestLTE(DecoderContract):
    component = "liif-core:lte"
    options = {"channels": 8, "hidden": [12, 10]}


class TestLTELinear(DecoderContract):
    component = "liif-core:lte"
    options = {"channels": 6, "hidden": []}
    neighbours = 1


class TestSRNO(DecoderContract):
    component = "liif-core:srno"
    options = {"width": 12, "heads": 3, "hidden": 10}


class TestSRNOThreeBlocks(DecoderContract):
    component = "liif-core:srno"
    options = {"width": 8, "heads": 4, "blocks": 3, "hidden": 6}


class TestSRNONearestOnly(DecoderContract):
    component = "liif-core:srno"
    options = {"width": 8, "heads": 1, "blocks": 1, "hidden": 6}
    neighbours = 1


class TestLMLIIF(DecoderContract):
    component = "liif-core:lm-liif"
    options = {"width": 6, "depth": 3, "latent": [10]}


class TestLMLIIFWithoutCell(DecoderContract):
    component = "liif-core:lm-liif"
    options = {"width": 5, "depth": 1, "latent": [9, 7]}
    conditions = {"coordinate": 2}


class TestLMLIIFWithoutLatentLayers(DecoderContract):
    component = "liif-core:lm-liif"
    options = {"width": 6, "depth": 2, "latent": []}
    neighbours = 1


class TestLMLTE(DecoderContract):
    component = "liif-core:lm-lte"
    options = {"width": 6, "depth": 3, "latent": [10], "channels": 8}


class TestLMLTEWithoutLatentLayers(DecoderContract):
    component = "liif-core:lm-lte"
    options = {"width": 4, "depth": 1, "latent": [], "channels": 6}
    neighbours = 1
