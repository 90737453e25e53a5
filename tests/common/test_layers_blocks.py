"""Blocks: which parts they run in which order, and where shortcuts and options go."""

import numpy as np
import pytest

from mobilenet_common.layers import (
    DepthwiseSeparable,
    FusedInvertedBottleneck,
    InvertedResidual,
    MobileAttention,
    UniversalInvertedBottleneck,
)
from tests.common.layers import SHAPE, array, built, close, numbers


def chain(layers, x):
    """Run layers one after the other."""
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
def test_a_block_runs_its_parts_in_order_and_adds_its_input(block, parts):
    x = numbers(*SHAPE)
    layer = built(block())
    named = [getattr(layer, part) for part in parts]
    assert sum(len(part.weights) for part in named) == len(layer.weights)
    expected = array(chain(named, x))
    if not isinstance(layer, DepthwiseSeparable):  # V1 has no shortcut
        expected = expected + x
    close(layer(x), expected, 1e-5)


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
def test_which_parts_of_a_block_are_activated(block, activations):
    layer = block()
    assert {part: getattr(layer, part).activation.__name__ for part in activations} == activations


@pytest.mark.parametrize(
    "kernels, strider",
    [((3, 5, 3), "middle"), ((3, 5, 0), "middle"), ((3, 0, 3), "start"), ((3, 0, 0), "start"), ((0, 0, 3), "end")],
)
def test_the_universal_bottleneck_strides_once(kernels, strider):
    start, middle, end = kernels
    layer = built(UniversalInvertedBottleneck(8, 24, start, middle, 2, end_kernel_size=end))
    assert tuple(layer(numbers(*SHAPE)).shape) == (2, 4, 3, 8)
    strides = {place: getattr(layer, place).strides for place in ("start", "middle", "end") if getattr(layer, place)}
    assert strides == {place: 2 if place == strider else 1 for place in strides}


@pytest.mark.parametrize("block", [FusedInvertedBottleneck, InvertedResidual, UniversalInvertedBottleneck])
def test_shortcuts_are_there_where_shapes_allow_and_none_is_asked_away(block):
    x = numbers(*SHAPE)
    wanted, unwanted = built(block(8, 24)), built(block(8, 24, shortcut=False))
    unwanted.set_weights(wanted.get_weights())
    close(array(wanted(x)) - array(unwanted(x)), x, 1e-5)
    for other in (built(block(16, 24)), built(block(8, 24, strides=2))):
        assert not other.adds_shortcut


@pytest.mark.parametrize("block", [FusedInvertedBottleneck, InvertedResidual, UniversalInvertedBottleneck])
def test_layer_scale_is_on_the_path_and_not_on_the_shortcut(block):
    x = numbers(*SHAPE)
    plain, scaled = built(block(8, 24, shortcut=False)), built(block(8, 24, layer_scale=0.125))
    scaled.set_weights([np.full(8, 0.125, "float32"), *plain.get_weights()])
    close(scaled(x), x + 0.125 * array(plain(x)), 1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: InvertedResidual(8, 24, normalization=None, drop_path_rate=0.5),
        lambda: MobileAttention(8, 2, 4, normalization=None, drop_path_rate=0.5),
    ],
    ids=["inverted", "attention"],
)
def test_stochastic_depth_drops_the_path_and_never_the_shortcut(make):
    x = np.repeat(numbers(1, 7, 5, 8), 64, axis=0)
    layer = built(make(), x.shape)
    path = array(layer(x, training=False)) - x
    trained = array(layer(x, training=True)) - x
    dropped = np.abs(trained).max((1, 2, 3)) < 1e-6
    assert 10 < dropped.sum() < 54
    close(trained[~dropped], 2 * path[~dropped], 1e-4)


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
