"""Order of the parts of blocks, their shortcuts, and the options that they pass to their parts."""

import numpy as np
import pytest

from mobilenet_common.layers import (
    DepthwiseSeparable,
    FusedInvertedBottleneck,
    InvertedResidual,
    MobileAttention,
    UniversalInvertedBottleneck,
)
from tests.common.layers import SHAPE, assert_close, build_layer, random_array, to_numpy


def chain(layers, x):
    """Apply layers one after another."""
    for layer in layers:
        x = layer(x)
    return x


@pytest.mark.parametrize(
    "block, parts",
    [
        (lambda: DepthwiseSeparable(8, 3, activation="relu6"), ["depthwise", "project"]),
        (lambda: InvertedResidual(8, 24, squeeze_filters=6), ["expand", "depthwise", "squeeze_excite", "project"]),
        (lambda: InvertedResidual(8, None), ["depthwise", "project"]),
        (lambda: FusedInvertedBottleneck(8, 24), ["expand", "project"]),
        (lambda: UniversalInvertedBottleneck(8, 24, 3, 5, end_kernel_size=3, layer_scale=0.5),
         ["start", "expand", "middle", "project", "end", "layer_scale"]),
        (lambda: UniversalInvertedBottleneck(8, 24, 3, 0), ["start", "expand", "project"]),
        (lambda: UniversalInvertedBottleneck(8, 24, 0, 3), ["expand", "middle", "project"]),
        (lambda: UniversalInvertedBottleneck(8, 24, 0, 0), ["expand", "project"]),
    ],
    ids=["separable", "inverted", "unexpanded", "fused", "three_kernels", "convnext_like", "ib", "ffn"],
)  # fmt: skip
def test_block_runs_parts_in_order_and_adds_shortcut(block, parts):
    x = random_array(*SHAPE)
    layer = build_layer(block())
    layers = [getattr(layer, part) for part in parts]
    assert sum(len(part.weights) for part in layers) == len(layer.weights)
    expected = to_numpy(chain(layers, x))
    if not isinstance(layer, DepthwiseSeparable):  # V1 has no shortcut
        expected = expected + x
    assert_close(layer(x), expected, 1e-5)


@pytest.mark.parametrize(
    "block, activations",
    [
        (lambda: DepthwiseSeparable(8), {"depthwise": "relu", "project": "relu"}),
        (lambda: InvertedResidual(8, 24), {"expand": "relu", "depthwise": "relu", "project": "linear"}),
        (lambda: FusedInvertedBottleneck(8, 24), {"expand": "relu", "project": "linear"}),
        (lambda: FusedInvertedBottleneck(8, 24, linear=False), {"expand": "relu", "project": "relu"}),
        (lambda: UniversalInvertedBottleneck(8, 24, 3, 3, end_kernel_size=3),
         {"start": "linear", "expand": "relu", "middle": "relu", "project": "linear", "end": "linear"}),
        (lambda: UniversalInvertedBottleneck(8, 24, 3, 3, end_kernel_size=3, linear=False),
         dict.fromkeys(("start", "expand", "middle", "project", "end"), "relu")),
        (lambda: MobileAttention(8, 2, 4, kv_kernel_size=3, query_strides=2),
         {"key_down": "linear", "value_down": "linear", "query": "linear", "key": "linear", "value": "linear",
          "output_projection": "linear"}),
    ],
)  # fmt: skip
def test_block_parts_have_expected_activations(block, activations):
    layer = block()
    assert {part: getattr(layer, part).activation.__name__ for part in activations} == activations


@pytest.mark.parametrize(
    "kernels, strided",
    [((3, 5, 3), "middle"), ((3, 5, 0), "middle"), ((3, 0, 3), "start"), ((3, 0, 0), "start"), ((0, 0, 3), "end")],
)
def test_universal_bottleneck_applies_strides_once(kernels, strided):
    start, middle, end = kernels
    layer = build_layer(UniversalInvertedBottleneck(8, 24, start, middle, 2, end_kernel_size=end))
    assert tuple(layer(random_array(*SHAPE)).shape) == (2, 4, 3, 8)
    strides = {part: getattr(layer, part).strides for part in ("start", "middle", "end") if getattr(layer, part)}
    assert strides == {part: 2 if part == strided else 1 for part in strides}


@pytest.mark.parametrize("block", [FusedInvertedBottleneck, InvertedResidual, UniversalInvertedBottleneck])
def test_shortcut_needs_equal_shapes_and_can_be_disabled(block):
    x = random_array(*SHAPE)
    enabled, disabled = build_layer(block(8, 24)), build_layer(block(8, 24, shortcut=False))
    disabled.set_weights(enabled.get_weights())
    assert_close(to_numpy(enabled(x)) - to_numpy(disabled(x)), x, 1e-5)
    for layer in (build_layer(block(16, 24)), build_layer(block(8, 24, strides=2))):
        assert not layer.adds_shortcut


@pytest.mark.parametrize("block", [FusedInvertedBottleneck, InvertedResidual, UniversalInvertedBottleneck])
def test_layer_scale_applies_only_to_the_residual_path(block):
    x = random_array(*SHAPE)
    plain, scaled = build_layer(block(8, 24, shortcut=False)), build_layer(block(8, 24, layer_scale=0.125))
    scaled.set_weights([np.full(8, 0.125, "float32"), *plain.get_weights()])
    assert_close(scaled(x), x + 0.125 * to_numpy(plain(x)), 1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: InvertedResidual(8, 24, normalization=None, drop_path_rate=0.5),
        lambda: MobileAttention(8, 2, 4, normalization=None, drop_path_rate=0.5),
    ],
    ids=["inverted", "attention"],
)
def test_stochastic_depth_drops_only_the_residual_path(make):
    x = np.repeat(random_array(1, 7, 5, 8), 64, axis=0)
    layer = build_layer(make(), x.shape)
    path = to_numpy(layer(x, training=False)) - x
    trained = to_numpy(layer(x, training=True)) - x
    dropped = np.abs(trained).max((1, 2, 3)) < 1e-6
    assert 10 < dropped.sum() < 54
    assert_close(trained[~dropped], 2 * path[~dropped], 1e-4)


def test_block_options_reach_every_convolution():
    layer = UniversalInvertedBottleneck(
        8, 24, 3, 3, end_kernel_size=3, dilation_rate=2, padding="symmetric", normalization="group",
        norm_epsilon=1e-5, norm_momentum=0.5, activation="silu", data_format="channels_first", dtype="mixed_bfloat16",
    )  # fmt: skip
    for part in (layer.start, layer.expand, layer.middle, layer.project, layer.end):
        assert part.padding == "symmetric"
        assert part.normalization == "group"
        assert part.norm_epsilon == 1e-5
        assert part.norm_momentum == 0.5
        assert part.data_format == "channels_first"
        assert part.compute_dtype == "bfloat16"
        assert part.dilation_rate == (2 if part.kernel_size > 1 else 1)
