"""Models in words, for reports: by their parts and sizes, whatever their experiment is called."""

from liif_core.experiment.schema import ModelSpec, WholeModelSpec


def short_description(model: ModelSpec) -> str:
    """The parts that have most of the parameters, such as "EDSR 4x32, MLP 64-64-64"."""
    if isinstance(model, WholeModelSpec):
        return model.model.describe()
    return f"{model.encoder.describe()}, {model.decoder.describe()}"


def full_description(model: ModelSpec) -> str:
    """Every part, such as "encoder EDSR 4x32; features unfold 3x3; ...; decoder MLP 64-64-64; residual bilinear"."""
    if isinstance(model, WholeModelSpec):
        return model.model.describe()
    parts = [f"{part.kind} {part.describe()}" for part in (model.encoder, model.features, model.sampling)]
    conditions = ", ".join(part.describe() for part in model.conditioning) or "none"
    parts += [f"conditioning {conditions}", f"decoder {model.decoder.describe()}", f"residual {model.residual}"]
    return "; ".join(parts)


def format_duration(seconds: float) -> str:
    """A duration in one unit: "40 s", "2 min", "5 h"."""
    name, size = next((unit for unit in (("h", 3600), ("min", 60)) if seconds >= 1.5 * unit[1]), ("s", 1))
    return f"{max(1, round(seconds / size))} {name}"
