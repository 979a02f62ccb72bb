"""What can be wrong with a data set, its scales and its protocol, found before anything is computed."""

from collections.abc import Sequence

from liif_core.data.crops import Images
from liif_core.errors import UserError
from liif_core.evaluation import metrics
from liif_core.model.continuous import ContinuousModel
from liif_core.sizes import Scale, low_resolution_size, scaled_size

_SHOWN = 20  # problems of a dataset named one by one


def check_set(
    images: Images,
    name: str,
    channels: int,
    scales: Sequence[Scale],
    protocol: str,
    ssim: bool,
    model: ContinuousModel | None = None,
) -> None:
    """Raises UserError with a line for every image and scale that cannot be evaluated, or ``model`` cannot render."""
    if ssim:
        metrics.need_ssim()
    try:
        metrics.check_protocol(protocol, channels)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    problems = []
    for i, (image_name, size) in enumerate(zip(images.names, images.sizes)):
        for scale in scales:
            where = f"{name}: {image_name} at {scale}"
            target = scaled_size(low_resolution_size(size, scale), scale)
            if target[0] > size[0] or target[1] > size[1]:
                problems.append(f"{where}: {size[0]} x {size[1]} pixels (height x width) are too few for that scale")
                continue
            try:
                metrics.check_size(target, protocol, scale, ssim)
                if model is not None:
                    model.check_scale(low_resolution_size(size, scale), target)
            except ValueError as error:
                problems.append(f"{where}: {error}")
            if images.pair_scales and images.low_resolution(i, scale) is None:
                rows, columns = low_resolution_size(size, scale)
                problems.append(
                    f"{where}: its LR image is of another scale (LR of {size[0]} x {size[1]} pixels would have "
                    f"{rows} x {columns}); evaluate at the scale that it has, or leave out the LR images"
                )
    if problems:
        more = len(problems) - _SHOWN
        raise UserError(*problems[:_SHOWN], *([f"{name}: ... and {more} more problems"] if more > 0 else []))
