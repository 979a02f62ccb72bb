"""``ContinuousModel.upscale``: an image in, an image of the same kind out. The command ``liif upscale`` uses it too."""

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from attrs import evolve
from PIL import Image
from torch import Tensor

from liif_core.images import (
    Depth,
    Picture,
    Source,
    from_picture,
    from_planes,
    mark_rows,
    picture_from_array,
    picture_from_pillow,
    picture_to_array,
    picture_to_pillow,
)
from liif_core.model.blame import blamed, check_finite_sum
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast, device_of, eval_mode
from liif_core.model.geometry import grid_over_image
from liif_core.model.picture_batch import PictureBatch
from liif_core.model.tile_plan import TilePlan, default_memory, plan_tiles, total_pixels
from liif_core.model.tiling import render_bands
from liif_core.sizes import OutputSize, Scale, Size, memory_bytes

AnyImage = TypeVar("AnyImage", Image.Image, np.ndarray, Tensor)
OnProgress = Callable[[float], object]  # receives the fraction that is done, up to 1.0


def upscale(
    model: ContinuousModel,
    image: AnyImage,
    output: OutputSize,
    memory: int | str | None,
    on_progress: OnProgress | None,
    precision: str,
) -> AnyImage:
    """What ``ContinuousModel.upscale`` documents."""
    limit = None if memory is None else _memory(memory)
    if on_progress is not None and not callable(on_progress):
        raise TypeError(f"on_progress: expected a function of the fraction done, got {on_progress!r}")
    autocast(device_of(model), precision)  # refuses a precision before anything is computed
    if isinstance(image, Tensor):
        return _upscale_tensor(model, image, output, limit, on_progress, precision)
    if isinstance(image, np.ndarray):
        larger = _upscale_picture(model, picture_from_array(image), output, limit, on_progress, precision)
        return picture_to_array(larger)[..., 0] if image.ndim == 2 else picture_to_array(larger)
    if isinstance(image, Image.Image):
        larger = _upscale_picture(model, picture_from_pillow(image), output, limit, on_progress, precision)
        return picture_to_pillow(larger)
    raise TypeError(
        "image: expected a PIL image, a numpy array (h, w) or (h, w, 3 or 4), or a tensor (c, h, w) or (B, c, h, w), "
        f"got {type(image).__name__}"
    )


def check_scale(model: ContinuousModel, output: OutputSize, size: Size) -> None:
    """Raises ValueError where a model cannot render an image of ``size`` at ``output``."""
    target = output.for_image(size)
    model.check_scale(size, target if output.region is None else grid_over_image(target, size, output.region))


def _upscale_picture(
    model: ContinuousModel,
    picture: Picture,
    output: OutputSize,
    memory: int | None,
    on_progress: OnProgress | None,
    precision: str,
) -> Picture:
    renderer = PictureRenderer(model, from_picture(picture), output)
    plan = renderer.plan(memory or default_memory(device_of(model)))
    for note in (*picture.notes, *renderer.notes(plan)):
        _warn(note)
    rows = np.empty((*renderer.size, renderer.channels), picture.depth)
    first = 0
    progress = _fraction_of(renderer.total_pixels, on_progress)
    with eval_mode(model):
        for band in renderer.rows(plan, picture.depth, precision, progress):
            rows[first : first + len(band)] = band
            first += len(band)
    color, alpha = (rows[..., :-1], rows[..., -1]) if picture.alpha is not None else (rows, None)
    return evolve(picture, color=color, alpha=alpha, metadata=renderer.metadata, notes=())


def _upscale_tensor(
    model: ContinuousModel,
    image: Tensor,
    output: OutputSize,
    memory: int | None,
    on_progress: OnProgress | None,
    precision: str,
) -> Tensor:
    if not image.is_floating_point():
        raise TypeError(f"image: expected a tensor of floats in [0, 1], got {image.dtype}")
    if image.ndim not in (3, 4) or image.shape[-3] != model.channels or 0 in image.shape:
        c = model.channels
        raise ValueError(f"image: expected a tensor ({c}, h, w) or (B, {c}, h, w), got {tuple(image.shape)}")
    batch = image if image.ndim == 4 else image[None]
    image_size = image.shape[-2], image.shape[-1]
    output.check(image_size)
    check_scale(model, output, image_size)
    if torch.is_grad_enabled() and (image.requires_grad or any(p.requires_grad for p in model.parameters())):
        if memory is not None:
            raise ValueError(
                "memory: cannot be limited where gradients are recorded; leave it out, or call under torch.no_grad()"
            )
        larger = _with_gradients(model, batch, output, precision)
        _fraction_of(1, on_progress)(1)
    else:
        larger = _in_tiles(model, batch, output, memory, on_progress, precision)
    return larger if image.ndim == 4 else larger[0]


def _with_gradients(model: ContinuousModel, batch: Tensor, output: OutputSize, precision: str) -> Tensor:
    device = device_of(model)
    with autocast(device, precision):
        encoded = model.encode(batch.to(device, torch.float32))
        larger = encoded.render(output.for_image(encoded.size), output.region)
    return larger.clamp(0, 1).to(batch.device, batch.dtype)


def _in_tiles(
    model: ContinuousModel,
    batch: Tensor,
    output: OutputSize,
    memory: int | None,
    on_progress: OnProgress | None,
    precision: str,
) -> Tensor:
    image_size = batch.shape[-2], batch.shape[-1]
    size, device = output.for_image(image_size), device_of(model)
    plan = plan_tiles(model, image_size, size, output.region, memory or default_memory(device), len(batch))
    for note in notes_on(model, plan, output.scale_for(image_size)):
        _warn(note)
    progress = _fraction_of(total_pixels(model, image_size, size, output.region), on_progress)
    larger = torch.empty(len(batch), model.channels, *size, dtype=batch.dtype, device=batch.device)
    first, total = 0, larger.new_zeros((), dtype=torch.float32)
    with eval_mode(model), blamed(model):
        for band in render_bands(
            model, lambda rows, columns: batch[:, :, rows, columns].float(), image_size, size, plan,
            region=output.region, precision=precision, on_progress=progress, to_host=batch.device != device,
        ):  # fmt: skip
            total += band.sum()
            larger[:, :, first : first + band.shape[2]] = band.clamp(0, 1)
            first += band.shape[2]
    check_finite_sum(total, model, precision)  # once, at the end: a GPU has to finish for that
    return larger


def _warn(note: str) -> None:
    """Warn, naming the line outside of liif_core that called."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("liif_core."):
        level, frame = level + 1, frame.f_back
    warnings.warn(note, stacklevel=level)


def _memory(memory: int | str) -> int:
    try:
        return memory_bytes(memory)
    except (TypeError, ValueError) as error:
        raise type(error)(f"memory: {error}") from None


def _fraction_of(total: int, on_progress: OnProgress | None) -> Callable[[int], object]:
    """A callback that counts pixels and passes on the fraction of ``total`` that is done."""
    done = 0

    def add(pixels: int) -> None:
        nonlocal done
        done += pixels
        if on_progress is not None:
            on_progress(min(1.0, done / total))

    return add


class PictureRenderer:
    """Renders a picture with a model, at a size, in bands of rows: first ``plan``, then ``rows``.

    Raises ValueError for a region that reaches beyond the picture, and for a model whose channels no picture has.
    """

    def __init__(self, model: ContinuousModel, picture: Source, output: OutputSize):
        output.check(picture.size)
        check_scale(model, output, picture.size)
        self.model = model
        self.batch = PictureBatch(picture, model.channels)
        self.channels = self.batch.channels  # of the rows, alpha included
        self.within = picture.size
        self.size = output.for_image(picture.size)
        self.region = output.region
        self.scale = output.scale_for(picture.size)
        # Of the part of a picture that is rendered, no positions and sizes of the whole hold.
        self.metadata = evolve(picture.metadata, whole=picture.size if output.region is None else None)
        self.total_pixels = total_pixels(model, self.within, self.size, self.region)  # the sum of all ``on_progress``

    def plan(self, memory: int) -> TilePlan:
        """How to cut the picture so that rendering takes about ``memory`` bytes. Raises UserError for too few."""
        return plan_tiles(
            self.model, self.within, self.size, self.region, memory, self.batch.images, self.batch.picture.row_bytes
        )

    def notes(self, plan: TilePlan) -> list[str]:
        """Sentences for the user about what the result is not."""
        return notes_on(self.model, plan, self.scale)

    def conversions(self) -> list[str]:
        """A sentence for the user where the picture has other channels than the model takes."""
        if self.batch.colors == self.model.channels:
            return []
        if self.batch.colors == 1:
            return ["the picture is gray: it was rendered as three equal channels, whose mean is the result"]
        return ["the model takes gray images: the channels of the picture were rendered one by one"]

    def rows(
        self, plan: TilePlan, depth: Depth, precision: str = "float32", on_progress: Callable[[int], object] = int
    ) -> Iterator[np.ndarray]:
        """Rows (h, W, channels) of type ``depth`` from top to bottom; ``on_progress`` as of ``render_bands``."""
        first = 0
        bands = render_bands(
            self.model, self.batch.read, self.within, self.size, plan, region=self.region,
            device=device_of(self.model), precision=precision, on_progress=on_progress,
        )  # fmt: skip
        while True:
            with blamed(self.model):
                band = next(bands, None)
            if band is None:
                return
            check_finite_sum(band.sum(), self.model, precision)
            color, alpha = self.batch.apart(band)
            rows = from_planes(color, alpha, depth, self.batch.picture.span)
            mark_rows(rows, first, self.batch.picture, self.size, self.region)
            first += len(rows)
            yield rows


def notes_on(model: ContinuousModel, plan: TilePlan, scale: Scale) -> list[str]:
    """Sentences for the user: whether tiles make the result approximate, and whether the scale was trained."""
    notes = []
    if plan.overlap:
        notes.append(
            "the model looks at the whole image, which does not fit in memory: it was rendered in overlapping tiles, "
            "and the result is approximate"
        )
    trained = model.trained_scale
    if trained is not None and not trained[0] <= min(scale.y, scale.x) <= max(scale.y, scale.x) <= trained[1]:
        notes.append(
            f"{scale.y:.3g} x {scale.x:.3g} is outside the scales this checkpoint was trained on, "
            f"{trained[0]:g} to {trained[1]:g}"
        )
    return notes
