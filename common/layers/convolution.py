"""Convolution, normalization and activation in one layer, from which all blocks are built."""

from typing import Any

import keras

from mobilenet_common import ops
from mobilenet_common.choices import ANTIALIASING, PADDINGS
from mobilenet_common.errors import flag, integer, odd_kernel, one_of
from mobilenet_common.facts import Facts
from mobilenet_common.layers.costs import Cost, elements
from mobilenet_common.layers.initialization import effective_initializer, he_fan_out
from mobilenet_common.layers.normalization import NormActivation
from mobilenet_common.layers.records import check_conventions, save_conventions
from mobilenet_common.ops.layout import channel_axis, join_shape, split_shape
from mobilenet_common.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mobilenet")
class ConvNormActivation(NormActivation):
    """2-D convolution, normalization and activation in one layer, so that a backend can run them as one step.

    Input: `(batch, height, width, in)`, or `(batch, in, height, width)`.
    Output: `(batch, ceil(height / strides), ceil(width / strides), filters)`, or channels first.
    With `antialias="average"`, the division rounds down.

    Args:
        filters: Number of output channels. None makes the convolution depthwise, with one kernel per channel.
        kernel_size: Number of rows and columns of the kernel, odd.
        strides: Stride of the convolution, 1 or 2.
        dilation_rate: Spacing between the kernel elements, in pixels.
        padding: `"same"` for TensorFlow's padding, `"symmetric"` for PyTorch's; see `ops.convolution`.
        use_bias: Whether to add a bias before the normalization.
        antialias: Anti-aliasing if `strides` is 2: the convolution has stride 1, and after the activation, the map is
            halved by an unpadded 2×2 mean (`"average"`) or a 3×3 binomial filter (`"blur"`; Zhang, 2019). None: the
            convolution itself has the stride.
        kernel_initializer: Initializer of the kernel. None: He's normal initializer, scaled by fan-out.
        image_facts: How the training images of the model's weights were prepared, as a dict from `Facts.as_config`.
            Used only in the stem of a model. None: unknown.
        normalization, norm_epsilon, norm_momentum, activation, data_format: See `NormActivation`.
        norm_trainable: See `NormActivation`. False freezes only the normalization; the kernel is still trained.
            `mobilenet_zoo.freeze_batch_norm` sets it for a whole model.

    Variables: `kernel` of shape `(rows, columns, in, filters)`, or `(rows, columns, in, 1)` if depthwise. `bias`,
    `gamma`, `beta`, `moving_mean` and `moving_variance` of shape `(filters,)`, or `(in,)` if depthwise.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        *,
        dilation_rate: int = 1,
        padding: str = "same",
        use_bias: bool = False,
        antialias: str | None = None,
        kernel_initializer: Any = None,
        image_facts: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = None if filters is None else integer("filters", filters, 1)
        self.kernel_size: int = odd_kernel("kernel_size", kernel_size)
        self.strides = one_of("strides", strides, (1, 2))
        self.dilation_rate = integer("dilation_rate", dilation_rate, 1)
        self.padding = one_of("padding", padding, PADDINGS)
        self.use_bias = flag("use_bias", use_bias)
        self.antialias = one_of("antialias", antialias, ANTIALIASING)
        self.kernel_initializer = keras.initializers.get(kernel_initializer or he_fan_out())
        self.image_facts = None if image_facts is None else Facts.from_config(image_facts)
        self.halves = self.antialias is not None and self.strides == 2
        self._is_pointwise_batch_norm = self.filters is not None and (
            self.kernel_size,
            self.strides,
            self.use_bias,
            self.normalization,
        ) == (1, 1, False, "batch")

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[channel_axis(self.data_format)]
        window = (self.kernel_size, self.kernel_size)
        shape = (*window, channels, 1) if self.filters is None else (*window, channels, self.filters)
        initializer = effective_initializer(self.kernel_initializer)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initializer)
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters or channels,), initializer="zeros")
        self._build_normalization(self.filters or channels)

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        if self._is_pointwise_batch_norm and self._uses_batch_statistics(training):
            return self._update_moving_statistics(
                *ops.pointwise_batch_norm_training(x, self.kernel, *self._batch_norm_options())
            )
        convolve = ops.depthwise_convolution if self.filters is None else ops.convolution
        x = convolve(
            x,
            self.kernel,
            self.bias if self.use_bias else None,
            stride=1 if self.halves else self.strides,
            dilation=self.dilation_rate,
            padding=self.padding,
            data_format=self.data_format,
        )
        x = self._normalize_and_activate(x, training, overwrite=True)
        if self.halves:
            if self.antialias == "average":
                return ops.average_pool(x, (2, 2), self.data_format)
            return ops.blur_pool(x, self.data_format, self.padding)
        return x

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        if self.name == "stem":
            save_conventions(self, store)

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)
        if self.name == "stem":
            check_conventions(self, store)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        batch, height, width, channels = split_shape(input_shape, self.data_format)
        if self.halves and self.antialias == "average":
            height, width = (None if n is None else n // 2 for n in (height, width))
        else:
            height, width = (ops.output_size(n, self.strides) for n in (height, width))
        return join_shape(batch, height, width, self.filters or channels, self.data_format)

    def costs(self, input_shape: Shape) -> list[Cost]:
        _, height, width, channels = split_shape(input_shape, self.data_format)
        if not self.halves:
            height, width = (ops.output_size(n, self.strides) for n in (height, width))
        outputs = height * width * (self.filters or channels)
        macs = outputs * self.kernel_size**2 * (1 if self.filters is None else channels)
        costs = [Cost(macs, elements(input_shape) + outputs)]
        if self.halves:
            costs.append(Cost(0, outputs + elements(self.compute_output_shape(input_shape))))
        return costs

    def get_config(self) -> dict[str, Any]:
        facts = {} if self.image_facts is None else {"image_facts": self.image_facts.as_config()}
        return {
            **super().get_config(),
            **facts,
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "dilation_rate": self.dilation_rate,
            "padding": self.padding,
            "use_bias": self.use_bias,
            "antialias": self.antialias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
