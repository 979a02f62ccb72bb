"""For each kind, its checks in one call and as a pytest class."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from liif_core.registry.components import Component
from liif_core.testing import conditioning, decoder, encoder, features, sampling
from liif_core.testing.case import Case, Check, Tensors
from liif_core.testing.common import OPTIONS
from liif_core.testing.running import Contract, run

CHECKS: Mapping[str, tuple[Check, ...]] = {
    "encoder": encoder.CHECKS,
    "features": features.CHECKS,
    "sampling": sampling.CHECKS,
    "conditioning": conditioning.CHECKS,
    "decoder": decoder.CHECKS,
}


def check_encoder(
    component: Component | str,
    options: Any = None,
    *,
    in_channels: int = 3,
    expected_failures: Mapping[str, str] = {},
) -> None:
    """Make every check of an encoder of images of ``in_channels``.

    ``component``: a Component, or what ``use`` says of an installed one; ``options``: an object of its options class,
    a table as in TOML, or None for the defaults; ``expected_failures``: a check's name -> why it fails.
    Raises AssertionError with a line for each check that fails, or was expected to fail and does not.
    """
    run(encoder.EncoderCase(component, options, in_channels), encoder.CHECKS, expected_failures)


def check_features(
    component: Component | str,
    options: Any = None,
    *,
    in_channels: int = 4,
    expected_failures: Mapping[str, str] = {},
) -> None:
    """Make every check of features of an encoder's ``in_channels``. See ``check_encoder``."""
    run(features.FeaturesCase(component, options, in_channels), features.CHECKS, expected_failures)


def check_sampling(
    component: Component | str, options: Any = None, *, expected_failures: Mapping[str, str] = {}
) -> None:
    """Make every check of a sampling. See ``check_encoder``."""
    run(sampling.SamplingCase(component, options), sampling.CHECKS, expected_failures)


def check_conditioning(
    component: Component | str, options: Any = None, *, expected_failures: Mapping[str, str] = {}
) -> None:
    """Make every check of a conditioning. See ``check_encoder``."""
    run(conditioning.ConditioningCase(component, options), conditioning.CHECKS, expected_failures)


def check_decoder(
    component: Component | str,
    options: Any = None,
    *,
    in_channels: int = 6,
    out_channels: int = 3,
    neighbours: int = 4,
    conditions: Mapping[str, int] = {"coordinate": 2, "cell": 2},
    expected_failures: Mapping[str, str] = {},
) -> None:
    """Make every check of a decoder that is given ``conditions``, name -> width. See ``check_encoder``.

    "coordinate" and "cell", two wide, are told as the names say; any other, as some smooth function of the offset.
    """
    case = decoder.DecoderCase(component, options, in_channels, out_channels, neighbours, conditions)
    run(case, decoder.CHECKS, expected_failures)


def check_options(options_class: type, options: Any = None, *, expected_failures: Mapping[str, str] = {}) -> None:
    """Make the checks of an options class, which those of every kind include. See ``check_encoder``."""
    component = Component(getattr(options_class, "__name__", "options"), lambda options: nn.Identity(), options_class)
    run(_OptionsCase(component, options), OPTIONS, expected_failures)


class _OptionsCase(Case):
    kind = "options"

    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        return {}

    def outputs(self, module: nn.Module, inputs: Tensors) -> Tensors:
        return {}


class EncoderContract(Contract, case=encoder.EncoderCase, checks=encoder.CHECKS):
    """The checks of an encoder. Attributes: see ``Contract``, and ``in_channels``."""


class FeaturesContract(Contract, case=features.FeaturesCase, checks=features.CHECKS):
    """The checks of features. Attributes: see ``Contract``, and ``in_channels``."""


class SamplingContract(Contract, case=sampling.SamplingCase, checks=sampling.CHECKS):
    """The checks of a sampling. Attributes: see ``Contract``."""


class ConditioningContract(Contract, case=conditioning.ConditioningCase, checks=conditioning.CHECKS):
    """The checks of a conditioning. Attributes: see ``Contract``."""


class DecoderContract(Contract, case=decoder.DecoderCase, checks=decoder.CHECKS):
    """The checks of a decoder. Attributes: see ``Contract``, and ``check_decoder`` for the sizes."""
