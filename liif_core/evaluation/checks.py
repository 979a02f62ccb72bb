"""What can be wrong with a data set, its scales and its protocol, found before anything is computed."""

from collections.abc import Iterator, Sequence

from liif_core.data.crops import Images
from liif_core.errors import UserError
from liif_core.evaluation import metrics
from liif_core.model.continuous import ContinuousModel
from liif_core.presets import PROTOCOLS
from liif_core.sizes import Scale, low_resolution_size, scaled_size

_SHOWN = 20  # problems of a dataset named one by one


def check_set(
    images: Images,
    name: str,
    channels: int,
    scales: Sequence[Scale],
    protocols: Sequence[str],
    ssim: bool,
    model: ContinuousModel | None = None,
) -> None:
    """Raises UserError with a line for every image and scale that cannot be evaluated, or ``model`` cannot render."""
    if ssim:
        metrics.need_ssim()
    unfit = []
    for protocol in protocols:
        try:
            metrics.check_protocol(protocol, channels)
        except ValueError as error:
            unfit.append(f"{name}: {error}")
    if unfit:
        raise UserError(*unfit)
    problems: dict[str, None] = {}  # in order, each once
    for i in range(len(images.names)):
        for scale in scales:
            problems |= dict.fromkeys(_problems(images, i, name, scale, protocols, ssim, model))
    if problems:
        more = len(problems) - _SHOWN
        raise UserError(*list(problems)[:_SHOWN], *([f"{name}: ... and {more} more problems"] if more > 0 else []))


def _problems(
    images: Images,
    i: int,
    name: str,
    scale: Scale,
    protocols: Sequence[str],
    ssim: bool,
    model: ContinuousModel | None,
) -> Iterator[str]:
    """What is wrong with image i at a scale."""
    size, where = images.sizes[i], f"{name}: {images.names[i]} at {scale}"
    low = low_resolution_size(size, scale)
    target = scaled_size(low, scale)
    if target[0] > size[0] or target[1] > size[1]:
        yield f"{where}: {size[0]} x {size[1]} pixels (height x width) are too few for that scale"
        return
    for protocol in protocols:
        try:
            metrics.check_size(target, protocol, scale, ssim)
        except ValueError as error:
            yield f"{where}: {error}"
            break
    else:
        if model is not None:
            try:
                model.check_scale(low, target)
            except ValueError as error:
                yield f"{where}: {error}"
    given = images.low_resolution(i, scale) is not None
    required = [protocol for protocol in protocols if PROTOCOLS[protocol].given_low == "required"]
    if not images.pair_scales and not given and required:
        yield f"{name} at {scale}: protocol {required[0]!r} is for pairs: give the LR images too"
    if images.pair_scales and not given:
        yield (
            f"{where}: its LR image is of another scale (LR of {size[0]} x {size[1]} pixels would have "
            f"{low[0]} x {low[1]}); evaluate at the scale that it has, or leave out the LR images"
        )
