"""Images of any size made one size inside a model."""

from typing import Any

import keras

from mobilenet_common.errors import integer, one_of
from mobilenet_common.ops.layout import join_shape, split_shape
from mobilenet_common.types import Shape, Tensor

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


@keras.saving.register_keras_serializable(package="mobilenet")
class Resize(keras.layers.Layer):
    """Resizes images, smoothing what becomes smaller.

    Keras's own `Resizing` takes `training` for True where nobody says otherwise, and the layers behind it then follow.

    Input: `(batch, height, width, channels)` or `(batch, channels, height, width)`, of any size.
    Output: The same with `height` and `width`.

    Args:
        height, width: Of the result, in pixels.
        interpolation: `"nearest"`, `"bilinear"` or `"bicubic"`.
        data_format: `"channels_last"`, `"channels_first"`, or None for Keras's setting.
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
