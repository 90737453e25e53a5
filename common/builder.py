"""Builds the layers of a Keras model from an architecture."""

import dataclasses
from typing import Any

import keras

from mobilenet_common.architecture import (
    Architecture,
    Attention,
    ChannelAttend,
    Conv,
    Excite,
    Fused,
    Inverted,
    Separable,
    Universal,
)
from mobilenet_common.conventions import TENSORFLOW
from mobilenet_common.layers import (
    ChannelAttention,
    ConvNormActivation,
    DepthwiseSeparable,
    FusedInvertedBottleneck,
    InvertedResidual,
    MobileAttention,
    SqueezeExcite,
    UniversalInvertedBottleneck,
)
from mobilenet_common.layers.initialization import classifier_uniform
from mobilenet_common.ops.layout import channel_axis
from mobilenet_common.types import Activation, Tensor
from mobilenet_common.widths import make_divisible


@dataclasses.dataclass(frozen=True)
class Placement:
    """The stem or a block, with its stride and dilation under a given output stride.

    Attributes:
        name: Name of the layer, such as `"stage3_block2"`.
        row: Row of the architecture, with scaled widths.
        stride: Stride of the block; 1 if dilation replaces the stride.
        dilation: Dilation rate of the spatial convolutions.
        level: Pyramid level of the output: n if the published network downsamples by `2 ** n` up to here.
    """

    name: str
    row: Any
    stride: int
    dilation: int
    level: int


def place_blocks(architecture: Architecture, output_stride: int = 32) -> list[Placement]:
    """Return the `Placement` of the stem (if the architecture has one) and of every block.

    A stride that would make the feature map smaller than `1 / output_stride` of the image is replaced by dilation of
    the following blocks; the block that loses its stride keeps the dilation rate of the blocks before it. With an
    `output_stride` of 32, all published strides are kept.
    """
    rows = architecture.blocks()
    if architecture.stem is not None:
        rows = [("stem", architecture.stem), *rows]
    placements, level, total_stride, dilation = [], 0, 1, 1
    for name, row in rows:
        block_stride, block_dilation = row.stride, dilation
        if row.stride == 2:
            level += 1
            if output_stride < 32 and total_stride * 2 > output_stride:
                block_stride, dilation = 1, dilation * 2
            else:
                total_stride *= 2
        placements.append(Placement(name, row, block_stride, block_dilation, level))
    return placements


class ModelBuilder:
    """Builds the layers of an architecture and connects them.

    Args:
        architecture: The `Architecture`, with scaled widths (see `Architecture.scaled`).
        output_stride: 32 for the published strides; 16 or 8 replaces later strides by dilation.
        padding, norm_epsilon, norm_momentum, data_format, dtype: Options of every layer.
        drop_path_rate: Rate of stochastic depth at the last block; it grows linearly from 0 at the first block.
    """

    def __init__(
        self,
        architecture,
        *,
        output_stride=32,
        padding=TENSORFLOW.padding,
        norm_epsilon=TENSORFLOW.norm_epsilon,
        norm_momentum=0.99,
        drop_path_rate=0.0,
        data_format="channels_last",
        dtype=None,
    ):
        self.architecture = architecture
        self.data_format = data_format
        self.dtype = dtype
        self.placements = place_blocks(architecture, output_stride)
        blocks = [placement for placement in self.placements if placement.name != "stem"]
        steps = max(1, len(blocks) - 1)
        self.drop_path_rates = {placement.name: drop_path_rate * i / steps for i, placement in enumerate(blocks)}
        # Options of layers without and with normalization.
        self.bare = {"data_format": data_format, "dtype": dtype}
        self.normalized = {
            **self.bare,
            "normalization": architecture.normalization,
            "norm_epsilon": norm_epsilon,
            "norm_momentum": norm_momentum,
            "padding": padding,
        }

    def body(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Apply the stem and the stages to the Keras tensor `x`; return the last feature map and `{level: map}`."""
        levels = {}
        for placement in self.placements:
            x = self.layer(placement, x.shape[channel_axis(self.data_format)])(x)
            if placement.level:
                levels[placement.level] = x
        return x, levels

    def head_conv(self, x: Tensor) -> Tensor:
        """Apply the convolution between the stages and the pool, if the architecture has one."""
        head = self.architecture.head
        if head is None or head.conv is None:
            return x
        return self._convolution(Placement("head_conv", head.conv, head.conv.stride, 1, 0))(x)

    def classifier(self, x: Tensor, num_classes: int, activation: Activation, dropout_rate: float) -> Tensor:
        """Apply the global pool, the head's dense layer, dropout, the classifier and its activation."""
        x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool", **self.bare)(x)
        dense = self.architecture.head and self.architecture.head.dense
        if dense:
            normalization = dense.normalization
            options = self.normalized | {
                "use_bias": dense.use_bias,
                "activation": dense.activation or self.architecture.activation,
            }
            if normalization != "default":
                options["normalization"] = normalization
            x = ConvNormActivation(dense.filters, 1, name="head_dense", **options)(x)
        x = keras.layers.Flatten(name="flatten", data_format=self.data_format, dtype=self.dtype)(x)
        if dropout_rate:
            x = keras.layers.Dropout(dropout_rate, name="dropout", dtype=self.dtype)(x)
        return classify(x, num_classes, activation, self.dtype)

    def layer(self, placement, channels):
        """Return the layer for `placement`, given the number of input channels."""
        return _LAYERS[type(placement.row)](self, placement, channels)

    def _convolution(self, placement, channels=None):
        row = placement.row
        return ConvNormActivation(
            row.filters,
            row.kernel,
            placement.stride,
            dilation_rate=placement.dilation,
            activation=row.activation or self.architecture.activation,
            antialias=None if placement.name == "stem" else self.architecture.antialias,
            name=placement.name,
            **self.normalized,
        )

    def _block_options(self, placement):
        row = placement.row
        options = {
            **self.normalized,
            "strides": placement.stride,
            "dilation_rate": placement.dilation,
            "activation": getattr(row, "activation", None) or self.architecture.activation,
            "antialias": self.architecture.antialias,
            "shortcut": getattr(row, "shortcut", False),
            "drop_path_rate": self.drop_path_rates[placement.name],
            "name": placement.name,
        }
        if hasattr(row, "layer_scale"):
            layer_scale = self.architecture.layer_scale if row.layer_scale is None else row.layer_scale
            # False in a row turns off the architecture's layer scale.
            options["layer_scale"] = None if layer_scale is False else layer_scale
        if hasattr(row, "linear"):
            options["linear"] = row.linear
        return options

    def _separable(self, placement, channels):
        return DepthwiseSeparable(placement.row.filters, placement.row.kernel, **self._block_options(placement))

    def _inverted(self, placement, channels):
        row, architecture = placement.row, self.architecture
        options = self._block_options(placement)
        if row.squeeze:
            squeezed = (row.expanded or channels) * row.squeeze
            divisor = architecture.squeeze_divisor
            options["squeeze_filters"] = max(1, round(squeezed)) if divisor == 1 else make_divisible(squeezed, divisor)
            options["squeeze_activation"] = architecture.squeeze_activation or options["activation"]
        return InvertedResidual(row.filters, row.expanded, row.kernel, **options)

    def _fused(self, placement, channels):
        row = placement.row
        return FusedInvertedBottleneck(row.filters, row.expanded, row.kernel, **self._block_options(placement))

    def _universal(self, placement, channels):
        row = placement.row
        return UniversalInvertedBottleneck(
            row.filters, row.expanded, row.start, row.middle, end_kernel_size=row.end, **self._block_options(placement)
        )

    def _attention(self, placement, channels):
        row, options = placement.row, self._block_options(placement)
        del options["strides"]
        return MobileAttention(
            row.filters,
            row.heads,
            row.key_size,
            row.value_size,
            multi_query=row.multi_query,
            kv_kernel_size=row.kv_kernel,
            kv_strides=row.kv_stride,
            query_strides=row.query_stride,
            attention_dropout=row.attention_dropout,
            projection_dropout=row.projection_dropout,
            **options,
        )

    def _squeeze_excite(self, placement, channels):
        row = placement.row
        return SqueezeExcite(row.squeeze, activation=row.activation, gate=row.gate, name=placement.name, **self.bare)

    def _channel_attention(self, placement, channels):
        return ChannelAttention(
            placement.row.heads,
            placement.stride,
            downsample=placement.row.stride == 2,
            dilation_rate=placement.dilation,
            padding=self.normalized["padding"],
            name=placement.name,
            **self.bare,
        )


_LAYERS = {
    Conv: ModelBuilder._convolution,
    Separable: ModelBuilder._separable,
    Inverted: ModelBuilder._inverted,
    Fused: ModelBuilder._fused,
    Universal: ModelBuilder._universal,
    Attention: ModelBuilder._attention,
    Excite: ModelBuilder._squeeze_excite,
    ChannelAttend: ModelBuilder._channel_attention,
}


def classify(x: Tensor, num_classes: int, activation: Any, dtype: Any) -> Tensor:
    """Apply the classifier and its activation; the activation runs in the variables' dtype under mixed precision."""
    x = keras.layers.Dense(
        num_classes,
        kernel_initializer=classifier_uniform(num_classes),
        dtype=dtype,
        name="classifier",
    )(x)
    variable_dtype = keras.dtype_policies.get(dtype or keras.config.dtype_policy()).variable_dtype
    return keras.layers.Activation(activation or "linear", dtype=variable_dtype, name="predictions")(x)
