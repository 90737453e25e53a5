"""Builds a Keras model from an architecture: the one walk through its table."""

import dataclasses

import keras

from mobilenet_common.architecture import (
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
from mobilenet_common.widths import make_divisible


@dataclasses.dataclass(frozen=True)
class Placement:
    """One block and where the output stride leaves it.

    Attributes:
        name: `stage3_block2`.
        row: Its row, with widths written out.
        stride: What it strides by, 1 where dilation took the stride's place.
        dilation: Of its spatial convolutions.
        level: The pyramid level its output belongs to: n for the published stride `2 ** n`.
    """

    name: str
    row: object
    stride: int
    dilation: int
    level: int


def place_blocks(architecture, output_stride=32):
    """Return the `Placement`s of the stem (if there is one) and of every block.

    From where the map would become smaller than `1 / output_stride`, strides become dilation of what follows; the
    first block of such a stage keeps the dilation before it. 32 stands for the published strides.
    """
    rows = architecture.blocks()
    if architecture.stem is not None:
        rows = [("stem", architecture.stem), *rows]
    placements, level, stride, dilation = [], 0, 1, 1
    for name, row in rows:
        own_stride, own_dilation = row.stride, dilation
        if row.stride == 2:
            level += 1
            if output_stride < 32 and stride * 2 > output_stride:
                own_stride, dilation = 1, dilation * 2
            else:
                stride *= 2
        placements.append(Placement(name, row, own_stride, own_dilation, level))
    return placements


class ModelBuilder:
    """Turns the rows of one architecture into layers that share its options, and wires them up.

    Args:
        architecture: With its widths written out (`Architecture.scaled`).
        output_stride: 32 for the published strides, 16 or 8.
        padding, norm_epsilon, norm_momentum, data_format, dtype: Of every layer.
        drop_path_rate: Of the last block; it grows linearly from 0 at the first.
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
        blocks = [place for place in self.placements if place.name != "stem"]
        steps = max(1, len(blocks) - 1)
        self.drop_path_rates = {place.name: drop_path_rate * i / steps for i, place in enumerate(blocks)}
        self.bare = {"data_format": data_format, "dtype": dtype}
        self.normalized = {
            **self.bare,
            "normalization": architecture.normalization,
            "norm_epsilon": norm_epsilon,
            "norm_momentum": norm_momentum,
            "padding": padding,
        }

    def body(self, x):
        """Run the stem and the stages on the Keras tensor `x`; return the last map and `{level: map}`."""
        levels = {}
        for place in self.placements:
            x = self.layer(place, x.shape[channel_axis(self.data_format)])(x)
            if place.level:
                levels[place.level] = x
        return x, levels

    def head_conv(self, x):
        """Return the convolution between the stages and the pool, where the architecture has one."""
        head = self.architecture.head
        if head is None or head.conv is None:
            return x
        return self._convolution(Placement("head_conv", head.conv, head.conv.stride, 1, 0))(x)

    def classifier(self, x, num_classes, activation, dropout_rate):
        """Add pool, wide layer, dropout, classifier and, in float32 at least, its activation."""
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

    def layer(self, place, channels):
        """Return the layer for one row; `channels` come in."""
        return _LAYERS[type(place.row)](self, place, channels)

    def _convolution(self, place, channels=None):
        row = place.row
        return ConvNormActivation(
            row.filters,
            row.kernel,
            place.stride,
            dilation_rate=place.dilation,
            activation=row.activation or self.architecture.activation,
            antialias=None if place.name == "stem" else self.architecture.antialias,
            name=place.name,
            **self.normalized,
        )

    def _block_options(self, place):
        row = place.row
        options = {
            **self.normalized,
            "strides": place.stride,
            "dilation_rate": place.dilation,
            "activation": getattr(row, "activation", None) or self.architecture.activation,
            "antialias": self.architecture.antialias,
            "shortcut": getattr(row, "shortcut", False),
            "drop_path_rate": self.drop_path_rates[place.name],
            "name": place.name,
        }
        if hasattr(row, "layer_scale"):
            chosen = self.architecture.layer_scale if row.layer_scale is None else row.layer_scale
            options["layer_scale"] = None if chosen is False else chosen
        if hasattr(row, "linear"):
            options["linear"] = row.linear
        return options

    def _separable(self, place, channels):
        return DepthwiseSeparable(place.row.filters, place.row.kernel, **self._block_options(place))

    def _inverted(self, place, channels):
        row, architecture = place.row, self.architecture
        options = self._block_options(place)
        if row.squeeze:
            squeezed = (row.expanded or channels) * row.squeeze
            divisor = architecture.squeeze_divisor
            options["squeeze_filters"] = max(1, round(squeezed)) if divisor == 1 else make_divisible(squeezed, divisor)
            options["squeeze_activation"] = architecture.squeeze_activation or options["activation"]
        return InvertedResidual(row.filters, row.expanded, row.kernel, **options)

    def _fused(self, place, channels):
        row = place.row
        return FusedInvertedBottleneck(row.filters, row.expanded, row.kernel, **self._block_options(place))

    def _universal(self, place, channels):
        row = place.row
        return UniversalInvertedBottleneck(
            row.filters, row.expanded, row.start, row.middle, end_kernel_size=row.end, **self._block_options(place)
        )

    def _attention(self, place, channels):
        row, options = place.row, self._block_options(place)
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

    def _squeeze_excite(self, place, channels):
        row = place.row
        return SqueezeExcite(row.squeeze, activation=row.activation, gate=row.gate, name=place.name, **self.bare)

    def _channel_attention(self, place, channels):
        return ChannelAttention(
            place.row.heads,
            place.stride,
            downsample=place.row.stride == 2,
            dilation_rate=place.dilation,
            padding=self.normalized["padding"],
            name=place.name,
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


def classify(x, num_classes, activation, dtype):
    """Return the last dense layer and its activation, computed in the variables' type under mixed precision."""
    x = keras.layers.Dense(
        num_classes,
        kernel_initializer=classifier_uniform(num_classes),
        dtype=dtype,
        name="classifier",
    )(x)
    full = keras.dtype_policies.get(dtype or keras.config.dtype_policy()).variable_dtype
    return keras.layers.Activation(activation or "linear", dtype=full, name="predictions")(x)
