"""The contracts as tests, for authors of plugins.

In a test file, a class for each component; pytest runs every check as a test of its own::

    from liif_core.testing import EncoderContract
    from my_encoder import liif_encoders

    class TestMine(EncoderContract):
        component = liif_encoders()
        options = {"channels": 8}
        expected_failures = {"finite": "divides by the image's contrast"}

Or all of them in one call, which raises AssertionError with a line for each check that fails::

    check_encoder(liif_encoders(), {"channels": 8}, expected_failures={"finite": "..."})

Give small options: every check builds the component, some of them several times.
"""

from liif_core.testing.contracts import (
    CHECKS,
    ConditioningContract,
    DecoderContract,
    EncoderContract,
    FeaturesContract,
    SamplingContract,
    check_conditioning,
    check_decoder,
    check_encoder,
    check_features,
    check_options,
    check_sampling,
)  # fmt: skip

__all__ = [
    "CHECKS", "ConditioningContract", "DecoderContract", "EncoderContract", "FeaturesContract", "SamplingContract",
    "check_conditioning", "check_decoder", "check_encoder", "check_features", "check_options", "check_sampling",
]  # fmt: skip
