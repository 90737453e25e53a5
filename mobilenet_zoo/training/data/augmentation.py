"""Random augmentation of an image, in Pillow and NumPy."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from mobilenet_common.errors import ArgumentError
from mobilenet_zoo.training.data.randaugment import RandAugment
from mobilenet_zoo.training.recipes import recipe

_CROP_ATTEMPTS = 10
_ERASED_AREA, _ERASED_RATIO = (0.02, 1 / 3), (0.3, 10 / 3)


@dataclasses.dataclass(frozen=True)
class Augmentation(recipe.Augmentation):
    """Random augmentation of training images.

    The fields and their allowed values are those of the recipe section `augmentation`; `randaugment` may also be a
    mapping of its fields.
    """

    def __post_init__(self):
        settings: Any = self.randaugment
        if settings is not None and not isinstance(settings, RandAugment):
            if not isinstance(settings, Mapping):
                settings = vars(settings)
            try:
                settings = RandAugment(**settings)
            except ArgumentError as error:
                raise ArgumentError(f"randaugment.{error}") from None
            object.__setattr__(self, "randaugment", settings)
        super().__post_init__()

    def crop(self, width, height, rng):
        """Return a random crop `(left, top, right, bottom)` in pixels; if none fits, return the largest center crop."""
        min_log_ratio, max_log_ratio = map(math.log, self.crop_ratio)
        for _ in range(_CROP_ATTEMPTS):
            min_fraction, max_fraction = self.crop_scale or (1.0, 1.0)
            area = width * height * rng.uniform(min_fraction, max_fraction)
            ratio = math.exp(rng.uniform(min_log_ratio, max_log_ratio))
            columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < columns <= width and 0 < rows <= height:
                left, top = int(rng.integers(width - columns + 1)), int(rng.integers(height - rows + 1))
                return left, top, left + columns, top + rows
        ratio = min(max(width / height, self.crop_ratio[0]), self.crop_ratio[1])
        columns, rows = min(width, round(height * ratio)), min(height, round(width / ratio))
        left, top = (width - columns) // 2, (height - rows) // 2
        return left, top, left + columns, top + rows

    def __call__(self, image, rng):
        """Augment a cropped PIL image in mode L or RGB, and return uint8 pixels `(height, width, channels)`."""
        if rng.random() < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.color_jitter:
            image = self._jitter_colors(image, rng)
        if self.randaugment:
            randaugment: Any = self.randaugment
            image = randaugment(image, rng)
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
        return self._erase_rectangle(pixels, rng) if rng.random() < self.erasing else pixels

    def _jitter_colors(self, image, rng):
        enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for i in rng.permutation(len(enhancers)):
            image = enhancers[i](image).enhance(rng.uniform(1 - self.color_jitter, 1 + self.color_jitter))
        return image

    @staticmethod
    def _erase_rectangle(pixels, rng):
        height, width, channels = pixels.shape
        box = Augmentation(_ERASED_AREA, _ERASED_RATIO).crop(width, height, rng)
        left, top, right, bottom = box
        pixels = pixels.copy()
        noise = rng.integers(0, 256, (bottom - top, right - left, channels), "uint8")
        pixels[top:bottom, left:right] = noise
        return pixels
