"""The evaluation transform of pictures: resized, cropped in the centre, normalised, as timm does it."""

import dataclasses
import math

import numpy as np

from mobilenet_common.errors import integer, number, pair
from mobilenet_runtime.pictures import open_picture, pillow

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Turns pictures into what a model takes.

    Attributes:
        size: Height and width of the result.
        crop: Share of the resized picture's shorter side that the result takes.
        interpolation: How the picture is resized.
        mean, std: Of each channel, for pixels in 0..1; None leaves pixels in 0..255, for a model that normalises.
        channels: 1 makes pictures grey, 3 makes them RGB.
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
        for name in ("mean", "std"):
            if getattr(self, name) is not None:
                put(name, tuple(number(name, value, -math.inf, math.inf) for value in getattr(self, name)))

    def __call__(self, pictures):
        """Float32 `(height, width, channels)` of one picture, with the batch before it of several.

        Args:
            pictures: A path, a PIL image, an array `(height, width[, channels])` of pixels in 0..255, a batch of
                such, or a list or tuple of any of them.

        Raises:
            PictureError: A picture can't be read; the message names it.
        """
        if not isinstance(pictures, (list, tuple)) and getattr(pictures, "ndim", 0) != 4:
            return self._one(pictures)
        if not len(pictures):
            raise ValueError("There are no pictures: give at least one.")
        return np.stack([self._one(picture) for picture in pictures])

    def _one(self, picture):
        pixels = np.asarray(self.pixels(picture), "float32").reshape(*self.size, -1)
        if self.mean is not None:
            pixels = (pixels / np.float32(255) - np.float32(self.mean)) / np.float32(self.std)
        return pixels if self.data_format == "channels_last" else np.moveaxis(pixels, -1, 0)

    def pixels(self, picture):
        """The PIL image of the crop, before it is normalised: what the model looks at."""
        image = open_picture(picture, self.channels)
        return _centre(_resized(image, self.size, self.crop, self.interpolation), self.size)


def _resized(image, size, crop, interpolation):
    """The picture with its shorter side as long as the crop needs it; see timm's evaluation transform."""
    rows, columns = (math.floor(n / crop) for n in size)
    width, height = image.size
    if rows == columns:
        short, long = min(width, height), max(width, height)
        other = int(rows * long / short)
        target = (rows, other) if width <= height else (other, rows)
    else:
        ratio = min(height / rows, width / columns)
        target = (round(width / ratio), round(height / ratio))
    if target == image.size:
        return image
    return image.resize(target, getattr(pillow("Image").Resampling, interpolation.upper()))


def _centre(image, size):
    """The centre of the picture, on black where it is too small."""
    rows, columns = size
    left, top = round((image.width - columns) / 2), round((image.height - rows) / 2)
    if image.width < columns:
        left = -((columns - image.width) // 2)
    if image.height < rows:
        top = -((rows - image.height) // 2)
    return image.crop((left, top, left + columns, top + rows))
