"""Attention blocks: MobileNetV4's attention over positions, and the compact family's attention over channels."""

import functools
from typing import Any

import keras

from mobilenet_common import ops
from mobilenet_common.errors import ArgumentError, flag, integer, number, odd_kernel, one_of, pair
from mobilenet_common.layers.block import Block
from mobilenet_common.layers.convolution import ConvNormActivation
from mobilenet_common.layers.costs import Cost, elements, path_costs
from mobilenet_common.layers.direct_call import DirectCallLayer
from mobilenet_common.layers.initialization import glorot, torch_default
from mobilenet_common.layers.normalization import NormActivation
from mobilenet_common.ops.layout import channel_axis, join_shape, split_shape
from mobilenet_common.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="mobilenet")
class MobileAttention(Block):
    """Attention over the positions of a feature map, with a shortcut (Qin et al., 2024, section 4).

    normalization → 1×1 query, key and value projections → scaled dot-product attention → 1×1 output projection →
    layer scale → shortcut. All projections are linear and have no bias. The height and width can have any size, and
    can be unknown when the model is built.

    Input: `(batch, height, width, channels)`, or channels first. Output: the same shape with `filters` channels.

    Args:
        filters: Number of output channels.
        heads: Number of heads of the query.
        key_size: Number of channels of each head's query and key.
        value_size: Number of channels of each head's value. None: `key_size`.
        multi_query: Whether all heads share one key and one value (Mobile MQA, the published form). With False, every
            head has its own key and value (multi-head attention).
        kv_kernel_size: Kernel size of two normalized depthwise convolutions, one before the key projection and one
            before the value projection; odd. 0 or None: no convolutions.
        kv_strides: Stride of these convolutions, 1 or 2. With 2, the keys and values come from a smaller map.
        query_strides: Size of the patches that the query is averaged over, an integer or `(rows, columns)`. The
            attention's output is enlarged to the input's height and width by bilinear interpolation.
        attention_dropout: Dropout rate for the attention weights, in [0, 1).
        projection_dropout: Dropout rate for the output of the output projection, in [0, 1).
        **kwargs: Arguments of `Block`. `strides` must be 1. `dilation_rate` applies to the key and value convolutions.
    """

    def __init__(
        self,
        filters: int,
        heads: int,
        key_size: int,
        value_size: int | None = None,
        *,
        multi_query: bool = True,
        kv_kernel_size: int | None = None,
        kv_strides: int = 1,
        query_strides: int | tuple[int, int] = 1,
        attention_dropout: float = 0.0,
        projection_dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(filters, **kwargs)
        if self.strides != 1:
            raise ArgumentError(
                f"strides={self.strides} is not allowed: attention keeps the size of its input, so strides must be 1."
            )
        self.heads = integer("heads", heads, 1)
        self.key_size = integer("key_size", key_size, 1)
        self.value_size = self.key_size if value_size is None else integer("value_size", value_size, 1)
        self.multi_query = flag("multi_query", multi_query)
        self.kv_kernel_size = odd_kernel("kv_kernel_size", kv_kernel_size, zero_is_none=True)
        self.kv_strides = one_of("kv_strides", kv_strides, (1, 2))
        if self.kv_strides > 1 and self.kv_kernel_size is None:
            raise ArgumentError(
                f"kv_strides={kv_strides} needs kv_kernel_size, the kernel size of the strided convolutions."
            )
        self.query_strides = pair("query_strides", query_strides, 1)
        self.attention_dropout = number("attention_dropout", attention_dropout, 0, 1, high_open=True)
        self.projection_dropout = number("projection_dropout", projection_dropout, 0, 1, high_open=True)
        self.norm = self._norm("norm")
        self.query_norm = self._norm("query_norm") if self._pools_query else None
        self.query = self._projection("query", self.heads * self.key_size)
        self.key_down, self.value_down = self._down("key_down"), self._down("value_down")
        kv_heads = 1 if self.multi_query else self.heads
        self.key_filters = kv_heads * self.key_size
        self.key = self._projection("key", self.key_filters)
        self.value = self._projection("value", kv_heads * self.value_size)
        self.output_projection = self._projection("output", self.filters)
        self.weights_drop = self._dropout("weights_drop", self.attention_dropout)
        self.output_drop = self._dropout("output_drop", self.projection_dropout)

    @property
    def _pools_query(self):
        return self.query_strides != (1, 1)

    def _norm(self, name):
        options = self._options()
        del options["padding"], options["antialias"], options["use_bias"]
        # A fused model keeps this batch norm's scale and offset: there is no preceding convolution to absorb them.
        if self.normalization is None and self.use_bias:
            options["normalization"] = "affine"
        return NormActivation(name=name, **options)

    def _projection(self, name, filters):
        return self._convolution(
            name, filters, normalization=None, use_bias=False, activation=None, kernel_initializer=glorot()
        )

    def _down(self, name):
        if self.kv_kernel_size is None:
            return None
        # This stride doesn't make the block's output smaller, so it needs no anti-aliasing.
        return self._convolution(
            name,
            None,
            self.kv_kernel_size,
            self.kv_strides,
            dilation_rate=self.dilation_rate,
            activation=None,
            antialias=None,
            kernel_initializer=glorot(),
        )

    def _dropout(self, name, rate):
        return keras.layers.Dropout(rate, dtype=self.dtype_policy, name=name) if rate else None

    @property
    def last_convolution(self) -> Any:
        """The output projection."""
        return self.output_projection

    def _key_path(self):
        return [layer for layer in (self.key_down, self.key) if layer is not None]

    def _value_path(self):
        return [layer for layer in (self.value_down, self.value) if layer is not None]

    def build(self, input_shape: Shape) -> None:
        self.norm.build(input_shape)
        if self.query_norm is not None:
            self.query_norm.build(input_shape)
        self.query.build(input_shape)
        for path in (self._key_path(), self._value_path()):
            shape = input_shape
            for layer in path:
                layer.build(shape)
                shape = layer.compute_output_shape(shape)
        self.output_projection.build(self._attended_shape(input_shape))
        if self.layer_scale is not None:
            self.layer_scale.build(self.compute_output_shape(input_shape))
        self.adds_shortcut = self.shortcut and self._keeps_shape(input_shape, self.compute_output_shape(input_shape))
        self._propagate_trainable()

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        y = self.norm.call(x, training)
        y = self._attend(y, training)
        y = self.output_projection.call(y)
        if self.output_drop is not None:
            y = self.output_drop(y, training=training)
        if self.layer_scale is not None:
            y = self.layer_scale.call(y)
        if not self.adds_shortcut:
            return y
        if self.drop_path is not None:
            y = self.drop_path(y, training=training)
        return x + y

    def _attend(self, y, training):
        key, value = y, y
        for layer in self._key_path():
            key = layer.call(key, training)
        for layer in self._value_path():
            value = layer.call(value, training)
        query = y
        if self.query_norm is not None:
            query = ops.average_pool(query, self.query_strides, self.data_format, partial=True)
            query = self.query_norm.call(query, training)
        drop = None if self.weights_drop is None else functools.partial(self.weights_drop, training=training)
        attended = ops.spatial_attention(
            self.query.call(query),
            key,
            value,
            heads=self.heads,
            multi_query=self.multi_query,
            data_format=self.data_format,
            dropout=drop,
        )
        if self.query_norm is None:
            return attended
        enlarged = ops.upsample(attended, self.query_strides, self.data_format)
        _, height, width, _ = split_shape(keras.ops.shape(y), self.data_format)
        if self.data_format == "channels_last":
            return enlarged[:, :height, :width, :]
        return enlarged[:, :, :height, :width]

    def _attended_shape(self, input_shape):
        batch, height, width, _ = split_shape(input_shape, self.data_format)
        return join_shape(batch, height, width, self.heads * self.value_size, self.data_format)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        batch, height, width, _ = split_shape(input_shape, self.data_format)
        return join_shape(batch, height, width, self.filters, self.data_format)

    def costs(self, input_shape: Shape) -> list[Cost]:
        """Return the `Cost` of each step. As in published tables, the MACs of the attention products aren't counted."""
        batch, height, width, channels = split_shape(input_shape, self.data_format)
        size = elements(input_shape)
        shortcut = size if self.adds_shortcut else 0
        query_shape = input_shape
        if self._pools_query:
            rows, columns = (-(-n // s) for n, s in zip((height, width), self.query_strides, strict=True))
            query_shape = join_shape(batch, rows, columns, channels, self.data_format)
        key, key_shape = path_costs(self._key_path(), input_shape)
        value, value_shape = path_costs(self._value_path(), input_shape)
        query, _ = path_costs([self.query], query_shape)
        queries = self.heads * elements(query_shape) // channels
        keys, values = elements(key_shape), elements(value_shape)
        positions = keys // self.key_filters
        steps = self.norm.costs(input_shape)
        steps += [cost.with_held(shortcut) for cost in key]
        steps += [cost.with_held(shortcut + keys) for cost in value]
        steps += [cost.with_held(shortcut + keys + values) for cost in query]
        attended = queries * self.value_size
        product = queries * (self.key_size + positions) + keys + values + attended
        steps.append(Cost(0, shortcut + product))
        output, _ = path_costs([self.output_projection], self._attended_shape(input_shape))
        steps += [cost.with_held(shortcut) for cost in output]
        if shortcut:
            steps.append(Cost(0, 3 * size))
        return steps

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["strides"]
        return {
            **config,
            "heads": self.heads,
            "key_size": self.key_size,
            "value_size": self.value_size,
            "multi_query": self.multi_query,
            "kv_kernel_size": self.kv_kernel_size,
            "kv_strides": self.kv_strides,
            "query_strides": list(self.query_strides),
            "attention_dropout": self.attention_dropout,
            "projection_dropout": self.projection_dropout,
        }


@keras.saving.register_keras_serializable(package="mobilenet")
class ChannelAttention(DirectCallLayer):
    """Attention between the channels of each head, as in the compact family; without output projection or shortcut.

    1×1 convolutions with bias compute query, key and value from the input. With `downsample`, full 3×3 convolutions
    with bias and stride `strides` follow: one for the query, and one that key and value share.

    Input: `(batch, height, width, channels)`, or channels first. Output: `(batch, ceil(height / strides),
    ceil(width / strides), channels)`, or channels first.

    Args:
        heads: Number of heads; must divide the number of channels.
        strides: 1, or 2 to halve the height and width.
        downsample: Whether to apply the 3×3 convolutions. None: only if `strides` is 2. A model with a smaller
            `output_stride` keeps these convolutions, but with stride 1 and dilated.
        dilation_rate: Spacing between the kernel elements of the 3×3 convolutions, in pixels.
        padding: Padding of the 3×3 convolutions, `"same"` or `"symmetric"`.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
    """

    def __init__(
        self,
        heads: int,
        strides: int = 1,
        *,
        downsample: Any = None,
        dilation_rate: int = 1,
        padding: str = "same",
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.heads = integer("heads", heads, 1)
        self.strides = one_of("strides", strides, (1, 2))
        self.downsample = self.strides == 2 if downsample is None else flag("downsample", downsample)
        self.dilation_rate = integer("dilation_rate", dilation_rate, 1)
        self.padding = padding
        self.data_format = data_format or keras.config.image_data_format()

    def build(self, input_shape: Shape) -> None:
        channels: Any = input_shape[channel_axis(self.data_format)]
        if channels % self.heads:
            raise ArgumentError(
                f"heads={self.heads} is not allowed: it must divide the number of input channels, {channels}."
            )
        self.query_down = self.kv_down = None
        if self.downsample:
            options = {"strides": self.strides, "dilation_rate": self.dilation_rate}
            self.query_down = self._convolution("query_down", channels, 3, **options)
            self.kv_down = self._convolution("kv_down", channels, 3, **options)
        self.query, self.key, self.value = (self._convolution(name, channels, 1) for name in ("query", "key", "value"))
        for layer in (self.query_down, self.kv_down, self.query, self.key, self.value):
            if layer is not None:
                layer.build(input_shape)
        self._propagate_trainable()

    def _convolution(self, name, filters, kernel_size, **options):
        return ConvNormActivation(
            filters,
            kernel_size,
            padding=self.padding,
            use_bias=True,
            normalization=None,
            kernel_initializer=torch_default(),
            data_format=self.data_format,
            dtype=self.dtype_policy,
            name=name,
            **options,
        )

    def _paths(self):
        """Return three lists of layers, which compute query, key and value, in the order in which they run."""
        paths = ((self.query, self.query_down), (self.key, self.kv_down), (self.value, self.kv_down))
        return [[layer for layer in path if layer is not None] for path in paths]

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        projections = []
        for path in self._paths():
            y = x
            for layer in path:
                y = layer.call(y)
            projections.append(y)
        return ops.channel_attention(*projections, heads=self.heads, data_format=self.data_format)

    def compute_output_shape(self, input_shape: Shape) -> Any:
        batch, height, width, channels = split_shape(input_shape, self.data_format)
        height, width = (ops.output_size(n, self.strides) for n in (height, width))
        return join_shape(batch, height, width, channels, self.data_format)

    def costs(self, input_shape: Shape) -> list[Cost]:
        """Return the `Cost` of each step. As in published tables, the MACs of the attention products aren't counted."""
        shape = self.compute_output_shape(input_shape)
        size, channels = elements(shape), shape[channel_axis(self.data_format)]
        steps, held = [], 0
        query, key, value = (path_costs(path, input_shape)[0] for path in self._paths())
        for costs, input_size in ((query, elements(input_shape)), (key, elements(input_shape)), (value, 0)):
            # The cost of a path's first step already includes the input, which the step reads. During the second step,
            # the input stays in memory for the paths that follow.
            steps += [cost.with_held(held + input_size * (i > 0)) for i, cost in enumerate(costs)]
            held += size
        return [*steps, Cost(0, 4 * size + channels * channels // self.heads)]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "heads": self.heads,
            "strides": self.strides,
            "downsample": self.downsample,
            "dilation_rate": self.dilation_rate,
            "padding": self.padding,
            "data_format": self.data_format,
        }
