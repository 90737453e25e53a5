"""What the residual blocks share: options that reach every convolution, and a path with a shortcut round it."""

from typing import Any

import keras

from mobilenet_common.errors import flag, integer, number, one_of
from mobilenet_common.layers.convolution import ConvNormActivation
from mobilenet_common.layers.costs import Cost, along, beside, elements
from mobilenet_common.layers.direct_call import DirectCallLayer
from mobilenet_common.layers.normalization import NormActivation
from mobilenet_common.layers.regularization import DropPath, LayerScale
from mobilenet_common.nesting import all_layers
from mobilenet_common.ops.layout import channel_axis
from mobilenet_common.types import Activation, Shape, Tensor


class Block(DirectCallLayer):
    """Base of the residual blocks: runs the layers of `_steps()` in turn, then adds the input where it may.

    The layers inside a block run by their `call`: what `__call__` does round it (types, scopes, names) the block's own
    has done, and it takes as long as a small convolution.

    The shortcut is there if `shortcut` is True, the path doesn't stride and has as many channels out as in.

    Args:
        filters: Channels that come out.
        strides: Of the block as a whole, 1 or 2.
        dilation_rate: Distance between the taps of its spatial convolutions, in pixels.
        activation: Of the path's inner convolutions.
        padding, normalization, norm_epsilon, norm_momentum, antialias: Of every convolution; see
            `ConvNormActivation`.
        use_bias: Whether the convolutions that would be normalized have a bias, as those of a fused model do.
        shortcut: Whether the input may be added to the output.
        layer_scale: First value of the learned factors on the path's output (`LayerScale`), or None for none.
        drop_path_rate: Fraction of images whose path is dropped in training (`DropPath`).
        data_format: `"channels_last"`, `"channels_first"`, or None for Keras's setting.
        norm_trainable: Whether the normalizations inside learn; see `NormActivation`.
    """

    def __init__(
        self,
        filters: int,
        strides: int = 1,
        *,
        dilation_rate: int = 1,
        activation: Activation = "relu",
        padding: str = "same",
        normalization: str | None = "batch",
        norm_epsilon: float = 1e-3,
        norm_momentum: float = 0.99,
        antialias: str | None = None,
        use_bias: bool = False,
        shortcut: bool = True,
        layer_scale: float | None = None,
        drop_path_rate: float = 0.0,
        data_format: str | None = None,
        norm_trainable: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = integer("filters", filters, 1)
        self.strides = one_of("strides", strides, (1, 2))
        self.dilation_rate = integer("dilation_rate", dilation_rate, 1)
        self.activation = keras.activations.get(activation)
        self.padding = padding
        self.normalization = normalization
        self.norm_epsilon = number("norm_epsilon", norm_epsilon, 0, 1, low_open=True)
        self.norm_momentum = number("norm_momentum", norm_momentum, 0, 1, high_open=True)
        self.antialias = antialias
        self.use_bias = flag("use_bias", use_bias)
        self.shortcut = flag("shortcut", shortcut)
        self.layer_scale_init = None if layer_scale is None else float(layer_scale)
        self.drop_path_rate = number("drop_path_rate", drop_path_rate, 0, 1, high_open=True)
        self.data_format = data_format or keras.config.image_data_format()
        self._norm_trainable = flag("norm_trainable", norm_trainable)
        self.layer_scale = self.drop_path = None
        if self.layer_scale_init is not None:
            self.layer_scale = LayerScale(
                self.layer_scale_init, data_format=self.data_format, dtype=self.dtype_policy, name="layer_scale"
            )
        if self.drop_path_rate:
            self.drop_path = DropPath(self.drop_path_rate, dtype=self.dtype_policy, name="drop_path")

    @property
    def norm_trainable(self) -> bool:
        """Whether the normalizations inside learn while the block does; settable, as that of `NormActivation`."""
        return self._norm_trainable

    @norm_trainable.setter
    def norm_trainable(self, value: bool) -> None:
        self._norm_trainable = flag("norm_trainable", value)
        for layer in all_layers(self):
            if isinstance(layer, NormActivation):
                layer.norm_trainable = self._norm_trainable

    def _steps(self) -> list:
        """Return the layers of the path, in the order in which they run."""
        raise TypeError(f"{type(self).__name__} must define _steps().")

    @property
    def last_convolution(self) -> Any:
        """The path's last `ConvNormActivation`."""
        return [layer for layer in self._steps() if isinstance(layer, ConvNormActivation)][-1]

    def _convolution(self, name, filters, kernel_size=1, strides=1, **overrides):
        """Return a `ConvNormActivation` with this block's options; `filters=None` for a depthwise one."""
        options = self._options() | {"activation": self.activation} | overrides
        return ConvNormActivation(filters, kernel_size, strides, name=name, **options)

    def _options(self):
        return {
            "padding": self.padding,
            "normalization": self.normalization,
            "norm_epsilon": self.norm_epsilon,
            "norm_momentum": self.norm_momentum,
            "antialias": self.antialias,
            "use_bias": self.use_bias,
            "data_format": self.data_format,
            "norm_trainable": self.norm_trainable,
            "dtype": self.dtype_policy,
        }

    def build(self, input_shape: Shape) -> None:
        shape = input_shape
        for layer in self._steps():
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.adds_shortcut = self.shortcut and self._keeps_shape(input_shape, shape)
        self._pass_on_trainable()

    def _keeps_shape(self, input_shape, output_shape):
        axis = channel_axis(self.data_format)
        return self.strides == 1 and input_shape[axis] == output_shape[axis]

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        y = x
        for layer in self._steps():
            y = layer.call(y, training)
        if not self.adds_shortcut:
            return y
        if self.drop_path is not None:
            y = self.drop_path(y, training=training)
        return x + y

    def compute_output_shape(self, input_shape: Shape) -> Any:
        for layer in self._steps():
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def costs(self, input_shape: Shape) -> list[Cost]:
        """Return `Cost`s of the block's steps, in order, for a batched `input_shape` with known height and width."""
        costs, shape = along(self._steps(), input_shape)
        if not self.adds_shortcut:
            return costs
        size = elements(input_shape)
        return beside(costs, size) + [Cost(0, 2 * size + elements(shape))]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
            "dilation_rate": self.dilation_rate,
            "activation": keras.activations.serialize(self.activation),
            "padding": self.padding,
            "normalization": self.normalization,
            "norm_epsilon": self.norm_epsilon,
            "norm_momentum": self.norm_momentum,
            "antialias": self.antialias,
            "use_bias": self.use_bias,
            "shortcut": self.shortcut,
            "layer_scale": self.layer_scale_init,
            "drop_path_rate": self.drop_path_rate,
            "data_format": self.data_format,
            "norm_trainable": self.norm_trainable,
        }
