"""Shared helpers of the layer tests: one layer of every kind, random inputs, and comparisons."""

import numpy as np
from keras import ops

from mobilenet_common.layers import (
    ChannelAttention,
    ConvNormActivation,
    DepthwiseSeparable,
    FusedInvertedBottleneck,
    InvertedResidual,
    LayerScale,
    MobileAttention,
    NormActivation,
    SqueezeExcite,
    UniversalInvertedBottleneck,
)

# The tests share a few sizes, since a backend compiles its operations for each size.
SHAPE = (2, 7, 5, 8)

LAYERS = {
    "norm": lambda **o: NormActivation(activation="relu", norm_epsilon=1e-4, norm_momentum=0.9, **o),
    "conv": lambda **o: ConvNormActivation(16, 3, 2, padding="symmetric", activation="relu6", **o),
    "conv_bias": lambda **o: ConvNormActivation(16, 5, use_bias=True, normalization=None, activation="silu", **o),
    "conv_dilated": lambda **o: ConvNormActivation(16, 3, dilation_rate=2, normalization="group", **o),
    "conv_average": lambda **o: ConvNormActivation(16, 3, 2, antialias="average", activation="relu", **o),
    "conv_blur": lambda **o: ConvNormActivation(16, 3, 2, antialias="blur", activation="relu", **o),
    "depthwise": lambda **o: ConvNormActivation(None, 5, 2, padding="same", normalization="layer", **o),
    "separable": lambda **o: DepthwiseSeparable(16, 5, 2, activation="relu6", **o),
    "inverted": lambda **o: InvertedResidual(8, 24, 5, squeeze_filters=6, activation="hard_swish", **o),
    "inverted_plain": lambda **o: InvertedResidual(16, None, 3, 2, padding="symmetric", **o),
    "fused": lambda **o: FusedInvertedBottleneck(8, 24, 3, linear=False, layer_scale=0.5, **o),
    "universal": lambda **o: UniversalInvertedBottleneck(8, 24, 3, 5, end_kernel_size=7, layer_scale=0.1, **o),
    "universal_strided": lambda **o: UniversalInvertedBottleneck(16, 24, 5, 3, 2, linear=False, **o),
    "attention": lambda **o: MobileAttention(8, 2, 4, **o),
    "attention_down": lambda **o: MobileAttention(8, 2, 4, 6, kv_kernel_size=3, kv_strides=2, layer_scale=0.5, **o),
    "attention_heads": lambda **o: MobileAttention(16, 2, 4, 3, multi_query=False, query_strides=(2, 3), **o),
    "channel_attention": lambda **o: ChannelAttention(2, **o),
    "channel_attention_down": lambda **o: ChannelAttention(2, 2, padding="symmetric", **o),
    "squeeze_excite": lambda **o: SqueezeExcite(6, activation="silu", gate="sigmoid", **o),
    "layer_scale": lambda **o: LayerScale(0.25, **o),
}


def small_random_array(kind):
    """Return inputs of `SHAPE`, small enough that a softmax doesn't amplify rounding to half precision."""
    return random_array(*SHAPE) / (4 if kind.startswith("channel_attention") else 2)


def random_array(*shape, seed=0):
    """Return standard normal values in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def to_numpy(tensor):
    """Convert a tensor of any backend to a NumPy array."""
    return ops.convert_to_numpy(tensor)


def assert_close(actual, expected, tolerance=2e-5):
    """Assert that tensors or arrays are equal up to a relative and absolute tolerance."""
    np.testing.assert_allclose(to_numpy(actual), to_numpy(expected), rtol=tolerance, atol=tolerance)


def randomize(layer, seed=1):
    """Assign random values to the weights and moving statistics of a built layer or model, and return it."""
    generator = np.random.default_rng(seed)
    for variable in layer.weights:
        values = generator.standard_normal(tuple(variable.shape)) * 0.5
        if variable.name == "moving_variance":
            values = np.abs(values) + 0.5
        if variable.name != "seed_generator_state":
            variable.assign(values.astype("float32"))
    return layer


def build_layer(layer, shape=SHAPE):
    """Build a layer for `shape`, give it random weights, and return it."""
    layer.build(shape)
    return randomize(layer)


def to_channels_first(x):
    return np.transpose(x, (0, 3, 1, 2))
