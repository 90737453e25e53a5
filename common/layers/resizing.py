"""Resizing images of any size to a fixed size inside a model."""

from typing import Any

import keras

from mobilenet_common.errors import integer, one_of
from mobilenet_common.ops.layout import join_shape, split_shape
from mobilenet_common.types import Shape, Tensor

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


@keras.saving.register_keras_serializable(package="mobilenet")
class Resize(keras.layers.Layer):
    """Resizes images, with anti-aliasing when it shrinks them.

    This layer replaces `keras.layers.Resizing`, whose argument `training` is True by default: the layers after it would
    then run in training mode too.

    Input: `(batch, height, width, channels)`, or channels first, with any height and width. Output: the same shape with
    the layer's `height` and `width`.

    Args:
        height, width: Size of the output, in pixels.
        interpolation: `"nearest"`, `"bilinear"` or `"bicubic"`.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
    """

    def __init__(
        self, height: int, width: int, interpolation: str = "bilinear", *, data_format: str | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.height = integer("height", height, 1)
        self.width = integer("width", width, 1)
        self.interpolation = one_of("interpolation", interpolation, INTERPOLATIONS)
        self.data_format = data_format or keras.config.image_data_format()
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        size, options = (self.height, self.width), {"antialias": True, "data_format": self.data_format}
        return keras.ops.image.resize(x, size, self.interpolation, **options)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        batch, _, _, channels = split_shape(input_shape, self.data_format)
        return join_shape(batch, self.height, self.width, channels, self.data_format)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "height": self.height,
            "width": self.width,
            "interpolation": self.interpolation,
            "data_format": self.data_format,
        }
