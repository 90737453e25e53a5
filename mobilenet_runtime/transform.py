"""Image preprocessing for inference: resize, center crop and normalize, like timm's evaluation transform."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet_common.choices import INTERPOLATIONS
from mobilenet_common.errors import ArgumentError, integer, mean_and_std, number, one_of, pair
from mobilenet_common.types import ImageLike
from mobilenet_runtime.images import open_image, pillow

if TYPE_CHECKING:
    from PIL import Image


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Preprocesses images for a model.

    Attributes:
        size: Height and width of the result in pixels.
        crop: Fraction of the resized image's shorter side that the center crop keeps, in (0, 1].
        interpolation: Name of the interpolation for resizing, such as `"bicubic"`.
        mean, std: Mean and standard deviation of each channel, for pixels in 0..1. None keeps pixels in 0..255, for
            models that normalize their input themselves.
        channels: Number of channels of the result: 1 converts images to grayscale, 3 to RGB.
        data_format: Data format of the result, `"channels_last"` or `"channels_first"`.
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
        """Preprocess one image or several.

        Args:
            images: A path, a PIL image, an array of pixels in 0..255 with shape `(height, width)` or `(height, width,
                channels)`, a batch of such arrays, the bytes of an image file, a file opened in binary mode, or a list
                or tuple of any of these. An open file is read from its current position, which is restored afterwards.

        Returns:
            A float32 array of shape `(height, width, channels)` for one image, and `(batch, height, width, channels)`
            for several, or with channels first if `data_format` says so.

        Raises:
            ValueError: If there are no images.
            ImageError: If an image can't be read. The message names the image.

        Warns:
            MobileNetWarning: If pixels are floats of at most 1, which is nearly black because 255 is white.
        """
        if not isinstance(images, (list, tuple)) and getattr(images, "ndim", 0) != 4:
            return self._one(images)
        batch: Any = images
        if not len(batch):
            raise ArgumentError("There are no images: pass at least one.")
        return np.stack([self._one(image) for image in batch])

    def _one(self, image):
        pixels = np.asarray(self.pixels(image)).reshape(*self.size, -1)
        return self.normalized(pixels if self.data_format == "channels_last" else np.moveaxis(pixels, -1, 0))

    def normalized(self, pixels: np.ndarray) -> np.ndarray:
        """Normalize pixels in 0..255 by the mean and the standard deviation.

        Args:
            pixels: Array of shape `(..., height, width, channels)`, or `(..., channels, height, width)` if
                `data_format` is `"channels_first"`.

        Returns:
            A float32 array of the same shape. Without a mean the values are unchanged.
        """
        pixels = np.asarray(pixels, "float32")
        if self.mean is None:
            return pixels
        axes = (-1,) if self.data_format == "channels_last" else (-1, 1, 1)
        mean, std = (np.asarray(values, "float32").reshape(axes) for values in (self.mean, self.std))
        return normalize(pixels, mean, std)

    def pixels(self, image: ImageLike) -> "Image.Image":
        """Return the resized and cropped PIL image that the model sees, before normalization."""
        opened = open_image(image, self.channels)
        resized = _resized(opened, self.size, self.crop, self.interpolation)
        return resized.crop(_center_box(resized.width, resized.height, self.size))

    def region(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the region of an upright image that the model sees.

        Args:
            width: Width of the image in pixels.
            height: Height of the image in pixels.

        Returns:
            `(left, top, right, bottom)` as floats, in pixels of the image. If the crop is larger than the resized image
            and padded with black, the region extends beyond the image.
        """
        columns, rows = _resized_size(width, height, self.size, self.crop)
        left, top, right, bottom = _center_box(columns, rows, self.size)
        return left * width / columns, top * height / rows, right * width / columns, bottom * height / rows


def normalize(pixels, mean, std):
    """Normalize pixels in 0..255 by a mean and a standard deviation for pixels in 0..1.

    Args:
        pixels: Array or tensor of floats, of any shape.
        mean: Mean of each channel, of a shape that broadcasts with `pixels`.
        std: Standard deviation of each channel, of a shape that broadcasts with `pixels`.
    """
    return (pixels / 255.0 - mean) / std


def _resized(image, size, crop, interpolation):
    """Return the image resized to the size from which the center is cropped, as in timm's evaluation transform."""
    target = _resized_size(image.width, image.height, size, crop)
    if target == image.size:
        return image
    return image.resize(target, getattr(pillow("Image").Resampling, interpolation.upper()))


def _resized_size(width, height, size, crop):
    """Return the width and height to which an image is resized before the crop."""
    rows, columns = (math.floor(n / crop) for n in size)
    if rows == columns:
        short, long = min(width, height), max(width, height)
        longer = int(rows * long / short)
        return (rows, longer) if width <= height else (longer, rows)
    ratio = min(height / rows, width / columns)
    return round(width / ratio), round(height / ratio)


def _center_box(width, height, size):
    """Return the box `(left, top, right, bottom)` of the center crop; it extends beyond an image that is too small."""
    rows, columns = size
    left, top = round((width - columns) / 2), round((height - rows) / 2)
    if width < columns:
        left = -((columns - width) // 2)
    if height < rows:
        top = -((rows - height) // 2)
    return left, top, left + columns, top + rows
