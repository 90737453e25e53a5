"""Normalization and activation in one layer, the base class of the convolutions."""

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
    """Normalizes its input and applies an activation.

    Batch norm uses its moving statistics in inference, and also in training while `trainable` or `norm_trainable` is
    False; `keras.layers.BatchNormalization` does the same while `trainable` is False. As in Keras, the moving variance
    averages the biased variances of the batches. All normalizations compute in float32 or float64, whatever the layer's
    dtype. With the dtypes `"float16"` and `"bfloat16"`, the variables are stored in that type.

    Input and output: `(batch, height, width, channels)`, or `(batch, channels, height, width)`.

    Args:
        normalization: `"batch"` (Ioffe & Szegedy, 2015), `"group"` (Wu & He, 2018; 8 channels per group, or the largest
            smaller divisor of the number of channels), `"layer"` (over the channels of each position), `"affine"` (only
            scale and offset, for a batch norm of a fused model that no convolution could absorb), or None.
        norm_epsilon: Number added to the variance, in (0, 1].
        norm_momentum: Fraction of the moving statistics that batch norm keeps in a training step, in [0, 1).
        activation: Anything that `keras.activations.get` takes; None for no activation.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        norm_trainable: Whether the normalization is trained. False keeps `gamma`, `beta` and the moving statistics
            unchanged, even in training and with `trainable=True`. `mobilenet_zoo.freeze_batch_norm` sets it for a whole
            model. Code that freezes all `keras.layers.BatchNormalization` layers has no effect, as there are none.
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
        """Whether training the layer trains its normalization. After changing this, compile the model again."""
        return self._norm_trainable

    @norm_trainable.setter
    def norm_trainable(self, value: bool) -> None:
        self._norm_trainable = flag("norm_trainable", value)
        self._set_norm_variables()

    @property
    def trainable(self) -> bool:
        """Whether the layer is trained, as in every Keras layer; its normalization also needs `norm_trainable`."""
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)
        self._set_norm_variables()

    def _set_norm_variables(self):
        for name in ("gamma", "beta"):
            if hasattr(self, name):
                getattr(self, name).trainable = self.trainable and self._norm_trainable

    def _uses_batch_statistics(self, training):
        """Return whether to normalize by the statistics of the batch and to update the moving statistics."""
        return training and self.trainable and self._norm_trainable

    def build(self, input_shape: Shape) -> None:
        self._build_normalization(input_shape[channel_axis(self.data_format)])

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return self._normalize_and_activate(x, training)

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
        # Rounding the statistics would change the outputs too much, so mixed precision never casts these variables.
        variable = {"shape": (channels,), "autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **variable)
        self.beta = self.add_weight(name="beta", initializer="zeros", **variable)
        if self.normalization == "batch":
            self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", trainable=False, **variable)
            self.moving_variance = self.add_weight(
                name="moving_variance", initializer="ones", trainable=False, **variable
            )
        if not self._norm_trainable:  # Freezing the variables only now keeps the order of the layer's weights.
            self._set_norm_variables()

    def _normalize_and_activate(self, x, training, overwrite=False):
        """Return `x` after normalization and activation, computed in place if `overwrite` allows it."""
        if self.normalization == "batch":
            return self._batch_norm(x, training, overwrite)
        if self.normalization is not None:
            gamma, beta = self._in_full_precision(self.gamma), self._in_full_precision(self.beta)
            if self.normalization == "group":
                size = channels_per_group(gamma.shape[0])
                x = ops.group_norm(x, gamma, beta, size, self.norm_epsilon, self.data_format)
            elif self.normalization == "layer":
                x = ops.layer_norm(x, gamma, beta, self.norm_epsilon, self.data_format)
            else:
                x = ops.affine(x, gamma, beta, self.data_format)
        return ops.activate(x, self.activation, self.data_format, overwrite=overwrite)

    def _batch_norm(self, x, training, overwrite):
        if self._uses_batch_statistics(training):
            return self._update_moving_statistics(*ops.batch_norm_training(x, *self._batch_norm_options()))
        statistics = self._in_full_precision(self.moving_mean), self._in_full_precision(self.moving_variance)
        return ops.batch_norm(x, *statistics, *self._batch_norm_options(), overwrite=overwrite)

    def _batch_norm_options(self):
        return (
            self._in_full_precision(self.gamma),
            self._in_full_precision(self.beta),
            self.norm_epsilon,
            self.activation,
            self.data_format,
        )

    def _in_full_precision(self, variable):
        """Return a variable, cast to float32 if it is stored in half precision, as in Keras's normalization layers."""
        return keras_ops.cast(variable, "float32") if self._has_half_variables else variable

    def _update_moving_statistics(self, y, mean, variance):
        """Update the moving statistics with `mean` and `variance`, and return `y`."""
        momentum = self.norm_momentum
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = self._in_full_precision(moving)
            moving.assign(old * momentum + keras_ops.cast(batch, old.dtype) * (1 - momentum))
        return y
