"""Base class of the residual blocks: options for all their convolutions, and a path of layers with a shortcut."""

from typing import Any

import keras

from mobilenet_common.errors import flag, integer, number, one_of
from mobilenet_common.layers.convolution import ConvNormActivation
from mobilenet_common.layers.costs import Cost, elements, path_costs, with_held_elements
from mobilenet_common.layers.direct_call import DirectCallLayer
from mobilenet_common.layers.normalization import NormActivation
from mobilenet_common.layers.regularization import DropPath, LayerScale
from mobilenet_common.nesting import all_layers
from mobilenet_common.ops.layout import channel_axis
from mobilenet_common.types import Activation, Shape, Tensor


class Block(DirectCallLayer):
    """Base class of the residual blocks: runs the layers of `_steps()` in order and adds the input if shapes allow.

    A block runs its inner layers through `call` instead of `__call__`. The block's own `__call__` has already handled
    dtypes, scopes and names, and each further `__call__` would take as long as a small convolution.

    The input is added to the output if `shortcut` is True, the stride is 1, and the path has as many output channels
    as input channels.

    Args:
        filters: Number of output channels.
        strides: Stride of the whole block, 1 or 2.
        dilation_rate: Spacing between the kernel elements of the spatial convolutions, in pixels.
        activation: Activation of the inner convolutions of the path; anything that `keras.activations.get` takes.
        padding, normalization, norm_epsilon, norm_momentum, antialias: Options of every convolution; see
            `ConvNormActivation`.
        use_bias: Whether the convolutions have a bias. It is True in fused models, whose convolutions have absorbed
            their batch norm.
        shortcut: Whether to add the input to the output if the shapes allow it.
        layer_scale: Initial value of the learned factors on the path's output; see `LayerScale`. None: no layer scale.
        drop_path_rate: Fraction of the images whose path is dropped in training, in [0, 1); see `DropPath`.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        norm_trainable: Whether to train the normalizations inside the block; see `NormActivation`.
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
        """Whether training the block trains the normalizations inside it; can be set, as in `NormActivation`."""
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
        """Return a `ConvNormActivation` with this block's options; `filters=None` makes it depthwise."""
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
        self._propagate_trainable()

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
        """Return the `Cost` of each step of the block, for a batched `input_shape` with known height and width."""
        costs, shape = path_costs(self._steps(), input_shape)
        if not self.adds_shortcut:
            return costs
        size = elements(input_shape)
        return with_held_elements(costs, size) + [Cost(0, 2 * size + elements(shape))]

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
