"""Random changes of one image, in Pillow and NumPy."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from mobilenet_common.errors import ArgumentError
from mobilenet_zoo.training.data.randaugment import RandAugment
from mobilenet_zoo.training.recipes import recipe

_TRIES = 10
_ERASED_SHARE, _ERASED_RATIO = (0.02, 1 / 3), (0.3, 10 / 3)


@dataclasses.dataclass(frozen=True)
class Augmentation(recipe.Augmentation):
    """How images are changed at random for training.

    The fields are those of a recipe, which also says what each may hold; `randaugment` may be a mapping of its fields.
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
            apply: Any = self.randaugment
            image = apply(image, rng)
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
