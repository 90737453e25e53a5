"""Normalization and activation as one layer, and the base of every convolution here."""

from typing import Any

import keras
from keras import ops as keras_ops

from mobilenet_common import ops
from mobilenet_common.choices import NORMALIZATIONS
from mobilenet_common.errors import flag, number, one_of
from mobilenet_common.layers.costs import Cost, elements
from mobilenet_common.layers.direct_call import DirectCallLayer
from mobilenet_common.ops.layout import channel_axis
from mobilenet_common.types import Activation, Shape, Tensor
from mobilenet_common.widths import channels_per_group

_HALF = ("float16", "bfloat16")


@keras.saving.register_keras_serializable(package="mobilenet")
class NormActivation(DirectCallLayer):
    """Normalizes its input per channel and applies an activation.

    Input and output: `(batch, height, width, channels)`, or `(batch, channels, height, width)`.

    Args:
        normalization: `"batch"` (Ioffe & Szegedy, 2015), `"group"` (Wu & He, 2018; 8 channels a group, or the largest
            divisor of the channels below that), `"layer"` (over the channels of each position), `"affine"` (only the
            factor and the offset: what a fused model keeps of a batch norm that follows no convolution) or None.
        norm_epsilon: Added to the variance.
        norm_momentum: Fraction of the old moving statistics that a training step of batch norm keeps.
        activation: Anything that `keras.activations.get` takes; None for none.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        norm_trainable: Whether the normalization learns. False keeps `gamma`, `beta` and the moving statistics as they
            are, in training too, whatever `trainable` is set to. `mobilenet_zoo.freeze_batch_norm` sets it on a whole
            model: the loop over `keras.layers.BatchNormalization` that freezes other models finds none here.

    Batch norm uses its moving statistics in inference, and also in training while `trainable` or `norm_trainable` is
    False, as Keras's own layer does while `trainable` is False. Its moving variance is the biased one, again as
    Keras's. All normalizations compute in float32 at least, whatever the layer's dtype; under `"float16"` and
    `"bfloat16"` the variables are stored in that type.
    """

    def __init__(
        self,
        *,
        normalization: str | None = "batch",
        norm_epsilon: float = 1e-3,
        norm_momentum: float = 0.99,
        activation: Activation = None,
        data_format: str | None = None,
        norm_trainable: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._norm_trainable = flag("norm_trainable", norm_trainable)
        self.normalization = one_of("normalization", normalization, (*NORMALIZATIONS, "affine", None))
        self.norm_epsilon = number("norm_epsilon", norm_epsilon, 0, 1, low_open=True)
        self.norm_momentum = number("norm_momentum", norm_momentum, 0, 1, high_open=True)
        self.activation = keras.activations.get(activation)
        self.data_format = data_format or keras.config.image_data_format()

    @property
    def norm_trainable(self) -> bool:
        """Whether the normalization learns while the layer does; settable, `compile` the model again afterwards."""
        return self._norm_trainable

    @norm_trainable.setter
    def norm_trainable(self, value: bool) -> None:
        self._norm_trainable = flag("norm_trainable", value)
        self._set_norm_variables()

    @property
    def trainable(self) -> bool:
        """Whether the layer learns, as every Keras layer has it; the normalization needs `norm_trainable` too."""
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)
        self._set_norm_variables()

    def _set_norm_variables(self):
        for name in ("gamma", "beta"):
            if hasattr(self, name):
                getattr(self, name).trainable = self.trainable and self._norm_trainable

    def _norm_learns(self, training):
        """Return whether a step of training moves the normalization, so that it takes the batch's own statistics."""
        return training and self.trainable and self._norm_trainable

    def build(self, input_shape: Shape) -> None:
        self._build_normalization(input_shape[channel_axis(self.data_format)])

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return self._finish(x, training)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        return tuple(input_shape)

    def costs(self, input_shape: Shape) -> list[Cost]:
        return [Cost(0, 2 * elements(input_shape))]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "normalization": self.normalization,
            "norm_epsilon": self.norm_epsilon,
            "norm_momentum": self.norm_momentum,
            "activation": keras.activations.serialize(self.activation),
            "data_format": self.data_format,
            "norm_trainable": self.norm_trainable,
        }

    def _build_normalization(self, channels):
        self._has_half_variables = self.variable_dtype in _HALF
        if self.normalization is None:
            return
        # The statistics decide the result more than any rounding may: never cast down under mixed precision.
        variable = {"shape": (channels,), "autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **variable)
        self.beta = self.add_weight(name="beta", initializer="zeros", **variable)
        if self.normalization == "batch":
            self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", trainable=False, **variable)
            self.moving_variance = self.add_weight(
                name="moving_variance", initializer="ones", trainable=False, **variable
            )
        if not self._norm_trainable:  # after they are made, so that a frozen layer's weights keep their order
            self._set_norm_variables()

    def _finish(self, x, training, overwrite=False):
        """Return `x` normalized and activated, in place where `overwrite` allows."""
        if self.normalization == "batch":
            return self._batch_norm(x, training, overwrite)
        if self.normalization is not None:
            gamma, beta = self._full(self.gamma), self._full(self.beta)
            if self.normalization == "group":
                size = channels_per_group(gamma.shape[0])
                x = ops.group_norm(x, gamma, beta, size, self.norm_epsilon, self.data_format)
            elif self.normalization == "layer":
                x = ops.layer_norm(x, gamma, beta, self.norm_epsilon, self.data_format)
            else:
                x = ops.affine(x, gamma, beta, self.data_format)
        return ops.activate(x, self.activation, self.data_format, overwrite=overwrite)

    def _batch_norm(self, x, training, overwrite):
        if self._norm_learns(training):
            return self._moved(*ops.batch_norm_training(x, *self._batch_norm_options()))
        statistics = self._full(self.moving_mean), self._full(self.moving_variance)
        return ops.batch_norm(x, *statistics, *self._batch_norm_options(), overwrite=overwrite)

    def _batch_norm_options(self):
        return (
            self._full(self.gamma),
            self._full(self.beta),
            self.norm_epsilon,
            self.activation,
            self.data_format,
        )

    def _full(self, variable):
        """Return the variable, cast to float32 if it is stored in half precision, as Keras's normalization does."""
        return keras_ops.cast(variable, "float32") if self._has_half_variables else variable

    def _moved(self, y, mean, variance):
        """Return `y`, after the moving statistics have followed the batch's."""
        keep = self.norm_momentum
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = self._full(moving)
            moving.assign(old * keep + keras_ops.cast(batch, old.dtype) * (1 - keep))
        return y
