"""For each kind, its checks in one call and as a pytest class."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from liif_core.registry.components import Component
from liif_core.testing import conditioning, decoder, degradation, encoder, features, sampling, whole_model
from liif_core.testing.case import Case, Check, Tensors
from liif_core.testing.common import OPTIONS
from liif_core.testing.decoder_case import DecoderCase
from liif_core.testing.running import Contract, run

CHECKS: Mapping[str, tuple[Check, ...]] = {
    "encoder": encoder.CHECKS,
    "features": features.CHECKS,
    "sampling": sampling.CHECKS,
    "conditioning": conditioning.CHECKS,
    "decoder": decoder.CHECKS,
    "model": whole_model.CHECKS,
    "degradation": degradation.CHECKS,
}


def check_encoder(
    component: Component | str,
    options: Any = None,
    *,
    in_channels: int = 3,
    has_parameters: bool = True,
    expected_failures: Mapping[str, str] = {},
) -> None:
    """Make every check of an encoder of images of ``in_channels``.

    ``component``: a Component, or the name of an installed one, as ``use`` has it. ``options``: an object of its
    options class, a table as in TOML, or None for the defaults. ``has_parameters``: False for an encoder without
    parameters. ``expected_failures``: the name of a check -> the reason why it fails.

    Raises AssertionError with a line for each check that fails unexpectedly, or passes unexpectedly. Warns with a
    ContractWarning where a declared distance is larger than the measured one.
    """
    run(encoder.EncoderCase(component, options, in_channels, has_parameters), encoder.CHECKS, expected_failures)


def check_features(
    component: Component | str,
    options: Any = None,
    *,
    in_channels: int = 4,
    expected_failures: Mapping[str, str] = {},
) -> None:
    """Make every check of features for an encoder of ``in_channels``. See ``check_encoder``."""
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
    has_parameters: bool = True,
    expected_failures: Mapping[str, str] = {},
) -> None:
    """Make every check of a decoder. See ``check_encoder``.

    ``in_channels``: of the codes; give the number that the decoder needs if it needs a certain one. ``conditions``:
    name -> width of those that it receives. "coordinate" and "cell" of width 2 are those of the default components; any
    other condition is a smooth function of the offset. ``has_parameters``: False for a decoder without parameters.
    """
    case = DecoderCase(component, options, in_channels, out_channels, neighbours, conditions, has_parameters)
    run(case, decoder.CHECKS, expected_failures)


def check_model(
    component: Component | str,
    options: Any = None,
    *,
    channels: int = 3,
    has_parameters: bool = True,
    expected_failures: Mapping[str, str] = {},
) -> None:
    """Make every check of a model that is not composed of parts, for images of ``channels``. See ``check_encoder``."""
    case = whole_model.ModelCase(component, options, channels, has_parameters)
    run(case, whole_model.CHECKS, expected_failures)


def check_degradation(
    component: Component | str, options: Any = None, *, expected_failures: Mapping[str, str] = {}
) -> None:
    """Make every check of a degradation. See ``check_encoder``."""
    run(degradation.DegradationCase(component, options), degradation.CHECKS, expected_failures)


def check_options(options_class: type, options: Any = None, *, expected_failures: Mapping[str, str] = {}) -> None:
    """Make the checks of an options class, which the checks of every kind include. See ``check_encoder``."""
    component = Component(getattr(options_class, "__name__", "options"), lambda options: nn.Identity(), options_class)
    run(_OptionsCase(component, options), OPTIONS, expected_failures)


class _OptionsCase(Case):
    kind = "options"

    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        return {}

    def outputs(self, module: Any, inputs: Tensors) -> Tensors:
        return {}


class EncoderContract(Contract, case=encoder.EncoderCase, checks=encoder.CHECKS):
    """The checks of an encoder. Attributes: those of ``Contract``, ``in_channels``, ``has_parameters``."""


class FeaturesContract(Contract, case=features.FeaturesCase, checks=features.CHECKS):
    """The checks of features. Attributes: those of ``Contract``, ``in_channels``."""


class SamplingContract(Contract, case=sampling.SamplingCase, checks=sampling.CHECKS):
    """The checks of a sampling. Attributes: those of ``Contract``."""


class ConditioningContract(Contract, case=conditioning.ConditioningCase, checks=conditioning.CHECKS):
    """The checks of a conditioning. Attributes: those of ``Contract``."""


class DecoderContract(Contract, case=DecoderCase, checks=decoder.CHECKS):
    """The checks of a decoder. Attributes: those of ``Contract``, and the sizes of ``check_decoder``."""


class ModelContract(Contract, case=whole_model.ModelCase, checks=whole_model.CHECKS):
    """The checks of a whole model. Attributes: those of ``Contract``, ``channels``, ``has_parameters``."""


class DegradationContract(Contract, case=degradation.DegradationCase, checks=degradation.CHECKS):
    """The checks of a degradation. Attributes: those of ``Contract``."""
