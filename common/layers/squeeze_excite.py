"""Squeeze-and-excitation (Hu et al., 2018)."""

from typing import Any

import keras

from mobilenet_common import ops
from mobilenet_common.errors import integer
from mobilenet_common.layers.convolution import ConvNormActivation
from mobilenet_common.layers.costs import Cost, elements, path_costs, with_held_elements
from mobilenet_common.layers.direct_call import DirectCallLayer
from mobilenet_common.ops.layout import channel_axis, join_shape, split_shape
from mobilenet_common.types import Activation, Shape, Tensor


@keras.saving.register_keras_serializable(package="mobilenet")
class SqueezeExcite(DirectCallLayer):
    """Multiplies each channel by a gate, computed from the means of all channels (Hu et al., 2018).

    global average pool → 1×1 convolution to `squeeze_filters` → `activation` → 1×1 convolution back → `gate` → product
    with the input. Both convolutions have a bias. Input and output have the same shape.

    Args:
        squeeze_filters: Number of channels between the two convolutions.
        activation: Activation between the convolutions. MobileNetV3 uses ReLU (Howard et al., 2019, section 5.3).
        gate: Activation of the second convolution. MobileNetV3 uses the hard sigmoid.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
    """

    def __init__(
        self,
        squeeze_filters: int | None,
        *,
        activation: Activation = "relu",
        gate: Activation = "hard_sigmoid",
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.squeeze_filters = integer("squeeze_filters", squeeze_filters, 1)
        self.activation = keras.activations.get(activation)
        self.gate = keras.activations.get(gate)
        self.data_format = data_format or keras.config.image_data_format()

    def build(self, input_shape: Shape) -> None:
        channels: Any = input_shape[channel_axis(self.data_format)]
        options = {
            "kernel_size": 1,
            "use_bias": True,
            "normalization": None,
            "data_format": self.data_format,
            "dtype": self.dtype_policy,
        }
        self.reduce = ConvNormActivation(self.squeeze_filters, activation=self.activation, name="reduce", **options)
        self.expand = ConvNormActivation(channels, activation=self.gate, name="expand", **options)
        pooled = self._pooled_shape(input_shape)
        self.reduce.build(pooled)
        self.expand.build(self.reduce.compute_output_shape(pooled))
        self._propagate_trainable()

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return x * self.expand.call(self.reduce.call(ops.mean_pool(x, self.data_format)))

    def compute_output_shape(self, input_shape: Shape) -> Any:
        return tuple(input_shape)

    def costs(self, input_shape: Shape) -> list[Cost]:
        size = elements(input_shape)
        gate, _ = path_costs((self.reduce, self.expand), self._pooled_shape(input_shape))
        return with_held_elements([Cost(0, size), *gate], size) + [Cost(0, 2 * size)]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "squeeze_filters": self.squeeze_filters,
            "activation": keras.activations.serialize(self.activation),
            "gate": keras.activations.serialize(self.gate),
            "data_format": self.data_format,
        }

    def _pooled_shape(self, input_shape):
        batch, _, _, channels = split_shape(input_shape, self.data_format)
        return join_shape(batch, 1, 1, channels, self.data_format)
