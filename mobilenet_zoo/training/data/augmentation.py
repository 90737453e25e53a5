"""Random changes of one image, in Pillow and NumPy."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageEnhance

from mobilenet_common.errors import ArgumentError, number
from mobilenet_zoo.training.data.randaugment import RandAugment

_TRIES = 10
_ERASED_SHARE, _ERASED_RATIO = (0.02, 1 / 3), (0.3, 10 / 3)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How images are changed at random for training.

    Attributes:
        crop_scale: Smallest and largest fraction of the image's area that is cropped (Szegedy et al., 2015, section
            6); None takes the part that is taken in evaluation.
        crop_ratio: Smallest and largest width divided by height of the crop.
        flip: Probability of a mirror image, in [0, 1].
        color_jitter: Brightness, contrast and saturation, in an order that is drawn, are multiplied by up to 1 ± this.
        randaugment: A `RandAugment`, a mapping of its fields, or None.
        erasing: Probability that a rectangle of 2% to 33% of the area becomes noise (Zhong et al., 2020, section 3).
    """

    crop_scale: tuple[float, float] | None = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    color_jitter: float = 0.0
    randaugment: RandAugment | None = None
    erasing: float = 0.0

    def __post_init__(self):
        if isinstance(self.randaugment, Mapping):
            object.__setattr__(self, "randaugment", RandAugment(**self.randaugment))
        if self.crop_scale is not None:
            object.__setattr__(self, "crop_scale", _span("crop_scale", self.crop_scale, 1.0))
        object.__setattr__(self, "crop_ratio", _span("crop_ratio", self.crop_ratio, float("inf")))
        for name in ("flip", "color_jitter", "erasing"):
            object.__setattr__(self, name, number(name, getattr(self, name), 0, 1))

    def crop(self, width, height, rng):
        """Return the crop `(left, top, right, bottom)` of an image, in pixels; the center where no drawn one fits."""
        low, high = map(math.log, self.crop_ratio)
        for _ in range(_TRIES):
            smallest, largest = self.crop_scale or (1.0, 1.0)
            area = width * height * rng.uniform(smallest, largest)
            ratio = math.exp(rng.uniform(low, high))
            columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < columns <= width and 0 < rows <= height:
                left, top = int(rng.integers(width - columns + 1)), int(rng.integers(height - rows + 1))
                return left, top, left + columns, top + rows
        ratio = min(max(width / height, self.crop_ratio[0]), self.crop_ratio[1])
        columns, rows = min(width, round(height * ratio)), min(height, round(width / ratio))
        left, top = (width - columns) // 2, (height - rows) // 2
        return left, top, left + columns, top + rows

    def __call__(self, image, rng):
        """Return pixels `(height, width, channels)` uint8 of a cropped PIL image in mode L or RGB, changed."""
        if rng.random() < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.color_jitter:
            image = self._jittered(image, rng)
        if self.randaugment:
            image = self.randaugment(image, rng)
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
        return self._erased(pixels, rng) if rng.random() < self.erasing else pixels

    def _jittered(self, image, rng):
        kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for i in rng.permutation(len(kinds)):
            image = kinds[i](image).enhance(rng.uniform(1 - self.color_jitter, 1 + self.color_jitter))
        return image

    @staticmethod
    def _erased(pixels, rng):
        height, width, channels = pixels.shape
        box = Augmentation(_ERASED_SHARE, _ERASED_RATIO).crop(width, height, rng)
        left, top, right, bottom = box
        pixels = pixels.copy()
        noise = rng.integers(0, 256, (bottom - top, right - left, channels), "uint8")
        pixels[top:bottom, left:right] = noise
        return pixels


def _span(name, value, most):
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ArgumentError(f"{name}={value!r} is not allowed: it must be a pair, such as (0.08, 1.0).")
    low, high = (number(name, bound, 0, most, low_open=True, high_open=math.isinf(most)) for bound in value)
    if low > high:
        raise ArgumentError(f"{name}={value!r} is not allowed: its first number must not be above its second.")
    return low, high
