"""What can be compared: models, and interpolation by Pillow."""

import time
from abc import ABC, abstractmethod

import numpy as np
import PIL
from PIL import Image

from liif_core.data.resize import resized
from liif_core.evaluation.pairs import as_tensor
from liif_core.evaluation.predicting import Predictions, Timed
from liif_core.evaluation.results import Subject
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import device_of, moved
from liif_core.presets import EvalProtocol
from liif_core.sizes import Size

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


class Method(ABC):
    """Makes an image of any size out of an LR image."""

    subject: Subject

    @abstractmethod
    def predict(self, low: np.ndarray, size: Size, protocol: EvalProtocol, where: str) -> Timed:
        """An LR image (h, w, c) uint8 at ``size``: (1, c, H, W) float32 in [0, 1], on the CPU.

        Raises UserError, which begins with ``where``, for a model whose output is not finite.
        """

    @property
    def model(self) -> ContinuousModel | None:
        """The model, if it is one."""
        return None


class ModelMethod(Method):
    """A model, in evaluation mode, on its device."""

    def __init__(self, model: ContinuousModel, subject: Subject, precision: str = "float32"):
        self._model, self.subject, self.precision = model, subject, precision

    def predict(self, low: np.ndarray, size: Size, protocol: EvalProtocol, where: str) -> Timed:
        image = moved(as_tensor(low), device_of(self._model))
        return Predictions(self._model, image, self.precision).predict(size, protocol, where)

    @property
    def model(self) -> ContinuousModel:
        """The model."""
        return self._model


class PillowMethod(Method):
    """Interpolation of the LR image by Pillow, to 8 bits: ``name`` is a key of ``FILTERS``.

    The filters are not widened, since images are enlarged. What protocols say of cells, orientations and tiles changes
    nothing here.
    """

    def __init__(self, name: str):
        self._filter = FILTERS[name]
        self.subject = Subject(name, f"{name} interpolation of the LR image by Pillow {PIL.__version__}, to 8 bits")

    def predict(self, low: np.ndarray, size: Size, protocol: EvalProtocol, where: str) -> Timed:
        start = time.perf_counter()
        image = resized(low, size, self._filter)
        seconds = time.perf_counter() - start
        return Timed(as_tensor(image), 0.0, seconds)
