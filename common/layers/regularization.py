"""Layer scale and stochastic depth."""

from typing import Any

import keras
from keras import ops as keras_ops

from mobilenet_common.errors import integer, number
from mobilenet_common.layers.costs import Cost, elements
from mobilenet_common.layers.direct_call import DirectCallLayer
from mobilenet_common.ops.layout import along_channels, channel_axis
from mobilenet_common.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mobilenet")
class LayerScale(DirectCallLayer):
    """Multiplies each channel by a learned factor with a small initial value (Touvron et al., 2021, section 2).

    Input and output have the same shape. Variable: `gamma` of shape `(channels,)`.

    Args:
        init_value: Initial value of the factors.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
    """

    def __init__(self, init_value: float = 1e-5, *, data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.init_value = float(init_value)
        self.data_format = data_format or keras.config.image_data_format()

    def build(self, input_shape: Shape) -> None:
        self.gamma = self.add_weight(
            name="gamma",
            shape=(input_shape[channel_axis(self.data_format)],),
            initializer=keras.initializers.Constant(self.init_value),
        )

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return x * along_channels(self.gamma, self.data_format)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        return tuple(input_shape)

    def costs(self, input_shape: Shape) -> list[Cost]:
        return [Cost(0, 2 * elements(input_shape))]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "init_value": self.init_value, "data_format": self.data_format}


@keras.saving.register_keras_serializable(package="mobilenet")
class DropPath(DirectCallLayer):
    """Stochastic depth: drops the whole input for a random fraction of the batch's images (Huang et al., 2016).

    The other images are divided by `1 - rate`, which preserves the expected value. In inference, the layer returns its
    input. Input and output have the same shape.

    Args:
        rate: Probability that an image is dropped, in [0, 1).
        seed: Seed of the random generator. None: a random seed.
    """

    def __init__(self, rate: float, *, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = number("rate", rate, 0, 1, high_open=True)
        self.seed = None if seed is None else integer("seed", seed, 0)
        self.seed_generator = keras.random.SeedGenerator(self.seed) if self.rate else None

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        if not training or not self.rate:
            return x
        keep_rate = 1.0 - self.rate
        shape = (keras_ops.shape(x)[0], 1, 1, 1)
        mask = keras_ops.floor(keep_rate + keras.random.uniform(shape, dtype="float32", seed=self.seed_generator))
        return x * keras_ops.cast(mask / keep_rate, x.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
