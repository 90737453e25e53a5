"""The evaluation transform of images: resized, cropped in the center, normalized, as timm does it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mobilenet_common.choices import INTERPOLATIONS
from mobilenet_common.errors import ArgumentError, integer, mean_and_std, number, one_of, pair
from mobilenet_common.types import ImageLike
from mobilenet_runtime.images import open_image, pillow


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Turns images into what a model takes.

    Attributes:
        size: Height and width of the result.
        crop: Fraction of the resized image's shorter side that the result takes.
        interpolation: How the image is resized.
        mean, std: Of each channel, for pixels in 0..1; None leaves pixels in 0..255, for a model that normalizes.
        channels: 1 makes images gray, 3 makes them RGB.
        data_format: Of the result.
    """

    size: tuple[int, int]
    crop: float
    interpolation: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    channels: int = 3
    data_format: str = "channels_last"

    def __post_init__(self):
        def put(name, value):
            object.__setattr__(self, name, value)

        put("size", pair("size", self.size, 1, "(height, width)"))
        put("crop", number("crop", self.crop, 0, 1, low_open=True))
        put("channels", integer("channels", self.channels, 1))
        put("interpolation", one_of("interpolation", self.interpolation, INTERPOLATIONS))
        mean, std = mean_and_std(self.mean, self.std)
        put("mean", mean)
        put("std", std)

    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> np.ndarray:
        """Return float32 `(height, width, channels)` of one image, with the batch before it of several.

        Args:
            images: A path, a PIL image, an array `(height, width[, channels])` of pixels in 0..255, a batch of
                such, the bytes of an image file, a file that is open in binary mode, or a list or tuple of any of them.
                A file is read from its current position and stays as it was.

        Raises:
            ImageError: An image can't be read; the message names it.

        Warns:
            MobileNetWarning: Floats are at most 1: nearly black, since 255 is white.
        """
        if not isinstance(images, (list, tuple)) and getattr(images, "ndim", 0) != 4:
            return self._one(images)
        several: Any = images
        if not len(several):
            raise ArgumentError("There are no images: give at least one.")
        return np.stack([self._one(image) for image in several])

    def _one(self, image):
        pixels = np.asarray(self.pixels(image)).reshape(*self.size, -1)
        return self.normalized(pixels if self.data_format == "channels_last" else np.moveaxis(pixels, -1, 0))

    def normalized(self, pixels: np.ndarray) -> np.ndarray:
        """Return pixels in 0..255, in the data format, as the model takes them in float32; unchanged without a mean.

        Args:
            pixels: `(..., height, width, channels)`, or `(..., channels, height, width)`.
        """
        pixels = np.asarray(pixels, "float32")
        if self.mean is None:
            return pixels
        axes = (-1,) if self.data_format == "channels_last" else (-1, 1, 1)
        mean, std = (np.asarray(values, "float32").reshape(axes) for values in (self.mean, self.std))
        return normalize(pixels, mean, std)

    def pixels(self, image: ImageLike) -> np.ndarray:
        """Return the PIL image of the crop, before it is normalized: what the model looks at."""
        opened = open_image(image, self.channels)
        resized = _resized(opened, self.size, self.crop, self.interpolation)
        return resized.crop(_center_box(resized.width, resized.height, self.size))

    def region(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the part of an upright image that the model looks at.

        Args:
            width: Of the image, in pixels.
            height: Of the image, in pixels.

        Returns:
            `(left, top, right, bottom)`, floats in pixels of the image. Where the crop is larger than the resized
            image, and black is around it, they lie outside.
        """
        columns, rows = _resized_size(width, height, self.size, self.crop)
        left, top, right, bottom = _center_box(columns, rows, self.size)
        return left * width / columns, top * height / rows, right * width / columns, bottom * height / rows


def normalize(pixels, mean, std):
    """Return pixels in 0..255, an array or a tensor of floats, normalized by a mean and a deviation of pixels in 0..1.

    Args:
        pixels: Of any shape.
        mean: Of each channel, of a shape that broadcasts.
        std: The same of the deviation.
    """
    return (pixels / 255.0 - mean) / std


def _resized(image, size, crop, interpolation):
    """Return the image with its shorter side as long as the crop needs it; see timm's evaluation transform."""
    target = _resized_size(image.width, image.height, size, crop)
    if target == image.size:
        return image
    return image.resize(target, getattr(pillow("Image").Resampling, interpolation.upper()))


def _resized_size(width, height, size, crop):
    """Return width and height that an image is resized to."""
    rows, columns = (math.floor(n / crop) for n in size)
    if rows == columns:
        short, long = min(width, height), max(width, height)
        other = int(rows * long / short)
        return (rows, other) if width <= height else (other, rows)
    ratio = min(height / rows, width / columns)
    return round(width / ratio), round(height / ratio)


def _center_box(width, height, size):
    """Return the box of the center of an image, which goes beyond it where it is too small."""
    rows, columns = size
    left, top = round((width - columns) / 2), round((height - rows) / 2)
    if width < columns:
        left = -((columns - width) // 2)
    if height < rows:
        top = -((rows - height) // 2)
    return left, top, left + columns, top + rows
