"""The contracts as tests, for authors of plugins.

In a test file, write a class for each component. pytest runs every check as a separate test::

    from liif_core.testing import EncoderContract
    from my_encoder import liif_encoders

    class TestMine(EncoderContract):
        component = liif_encoders()
        options = {"channels": 8}
        expected_failures = {"finite": "divides by the contrast of the image"}

Or make all checks in one call, which raises AssertionError with a line for each check that fails::

    check_encoder(liif_encoders(), {"channels": 8}, expected_failures={"finite": "..."})

Choose options that make the component small: every check builds it, some checks several times.

A component that declares a larger radius, reach or halo than it needs keeps its contract. It is reported with a
ContractWarning, which pytest shows in its summary of warnings: "radius: declared 3, measured 1".
"""

from liif_core.testing.case import ContractBroken, ContractWarning
from liif_core.testing.contracts import (
    CHECKS,
    ConditioningContract,
    DecoderContract,
    DegradationContract,
    EncoderContract,
    FeaturesContract,
    ModelContract,
    SamplingContract,
    check_conditioning,
    check_decoder,
    check_degradation,
    check_encoder,
    check_features,
    check_model,
    check_options,
    check_sampling,
)

__all__ = [
    "CHECKS", "ConditioningContract", "ContractBroken", "ContractWarning", "DecoderContract", "DegradationContract",
    "EncoderContract", "FeaturesContract", "ModelContract", "SamplingContract", "check_conditioning", "check_decoder",
    "check_degradation", "check_encoder", "check_features", "check_model", "check_options", "check_sampling",
]  # fmt: skip
