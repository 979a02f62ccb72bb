"""What is measured of images besides PSNR: SSIM where it is asked for, and what a protocol measures where it can."""

import warnings
from collections.abc import Iterable

from liif_core.errors import UserError
from liif_core.evaluation import metrics, perceptual
from liif_core.presets import PROTOCOLS
from liif_core.sizes import Scale, Size, low_resolution_size, scaled_size


class NotMeasured(UserWarning):
    """SSIM or LPIPS, which the protocol measures where it can, is left out."""


def besides(
    protocol: str, scale: Scale, sizes: Iterable[Size], channels: int, ssim: bool, where: str
) -> tuple[frozenset[str], list[str]]:
    """Of "ssim" and "lpips" those to measure on images of ``sizes``, (height, width) before they are cropped.

    Also a sentence, which begins with ``where``, for each that the protocol measures, that is installed, and that
    cannot be measured here: of images too small or of other channels, or by a library that does not work.
    """
    found, reasons = {"ssim"} if ssim else set[str](), []
    rows, columns = PROTOCOLS[protocol].border(scale)
    targets = [scaled_size(low_resolution_size(size, scale), scale) for size in sizes]
    side = min(min(height - 2 * rows, width - 2 * columns) for height, width in targets)
    for name in PROTOCOLS[protocol].besides:
        if name in found or (name == "ssim" and not metrics.ssim_installed()):
            continue
        if name == "lpips" and not perceptual.installed():
            continue
        if reason := _unfit_for_ssim(side) if name == "ssim" else _unfit_for_lpips(side, channels):
            reasons.append(f"{where} at {scale}: {name.upper()} is left out: {reason}")
        else:
            found.add(name)
    return frozenset(found), reasons


def warn(reasons: Iterable[str]) -> None:
    """A warning (NotMeasured) for each different one."""
    for reason in dict.fromkeys(reasons):
        warnings.warn(reason, NotMeasured, stacklevel=3)


def _unfit_for_ssim(side: int) -> str:
    if side < metrics.SSIM_WINDOW:
        return f"it needs {metrics.SSIM_WINDOW} pixels a side inside the border, and an image has {side}"
    try:
        metrics.need_ssim()
    except UserError as error:
        return str(error)
    return ""


def _unfit_for_lpips(side: int, channels: int) -> str:
    return perceptual.unfit(side, channels) or perceptual.unusable()
