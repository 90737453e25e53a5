"""Attention over positions and over channels, against its definition in NumPy."""

import numpy as np
import pytest

from mobilenet_common.layers import (
    ChannelAttention,
    MobileAttention,
)
from tests.common.layers import SHAPE, array, built, close, numbers


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attend(query, key, value, heads, shared):
    """Attention over positions by its definition, for maps with the channels last."""
    batch, height, width, _ = query.shape

    def heads_of(x, count):
        return x.reshape(batch, -1, count, x.shape[-1] // count).transpose(0, 2, 1, 3)

    q = heads_of(query, heads)
    k, v = (heads_of(x, 1 if shared else heads) for x in (key, value))
    weights = softmax(q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1]))
    return (weights @ v).transpose(0, 2, 1, 3).reshape(batch, height, width, -1)


@pytest.mark.parametrize("value_size", [None, 6])
@pytest.mark.parametrize("multi_query", [True, False])
@pytest.mark.parametrize("kv", [{}, {"kv_kernel_size": 3}, {"kv_kernel_size": 5, "kv_strides": 2}])
def test_attention_against_its_definition(kv, multi_query, value_size):
    x = numbers(*SHAPE)
    layer = built(MobileAttention(8, 2, 4, value_size, multi_query=multi_query, **kv))
    y = layer.norm(x)
    query = array(layer.query(y))
    key = array(layer.key(layer.key_down(y) if kv else y))
    value = array(layer.value(layer.value_down(y) if kv else y))
    assert query.shape[-1] == 8
    assert key.shape[1:3] == ((4, 3) if "kv_strides" in kv else (7, 5))
    assert (key.shape[-1], value.shape[-1]) == ((4, value_size or 4) if multi_query else (8, 2 * (value_size or 4)))
    attended = attend(query, key, value, 2, multi_query)
    close(layer(x), x + array(layer.output_projection(attended)), 1e-4)


def test_query_and_key_do_not_share_weights_with_value():
    layer = built(MobileAttention(8, 2, 4, kv_kernel_size=3))
    assert (
        len({id(part.kernel) for part in (layer.query, layer.key, layer.value, layer.key_down, layer.value_down)}) == 5
    )


def patch_means(x, rows, columns):
    """Means over patches; those at the lower and right edge over the pixels that there are."""
    parts = [
        [x[:, i : i + rows, j : j + columns].mean((1, 2)) for j in range(0, x.shape[2], columns)]
        for i in range(0, x.shape[1], rows)
    ]
    return np.stack([np.stack(line, 1) for line in parts], 1)


def enlarge(x, factor, axis):
    """Bilinear interpolation between pixel centers along one axis, the edge's value beyond the edge."""
    size = x.shape[axis]
    position = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, size - 1)
    share = (position - low).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share


@pytest.mark.parametrize("strides", [(2, 2), (1, 3), (3, 2), (8, 8)])
def test_query_strides_on_sizes_that_do_not_divide(strides):
    x = numbers(*SHAPE)
    layer = built(MobileAttention(8, 2, 4, query_strides=strides))
    y = layer.norm(x)
    pooled = patch_means(array(y), *strides)
    query = array(layer.query(layer.query_norm(pooled)))
    attended = attend(query, array(layer.key(y)), array(layer.value(y)), 2, True)
    for axis, factor in zip((1, 2), strides, strict=True):
        attended = enlarge(attended, factor, axis)
    attended = attended[:, :7, :5].astype("float32")
    close(layer(x), x + array(layer.output_projection(attended)), 1e-4)


def test_a_query_stride_of_one_number_is_for_both_axes():
    assert MobileAttention(8, 2, 4, query_strides=2).query_strides == (2, 2)
    assert MobileAttention(8, 2, 4).query_norm is None


@pytest.mark.parametrize("options", [{"attention_dropout": 0.5}, {"projection_dropout": 0.5}])
def test_attention_dropouts_act_in_training_only(options):
    x = numbers(*SHAPE)
    dropping, plain = (built(MobileAttention(8, 2, 4, normalization=None, **o)) for o in (options, {}))
    dropping.set_weights(plain.get_weights() + dropping.get_weights()[len(plain.get_weights()) :])
    close(dropping(x, training=False), plain(x), 1e-6)
    first, second = (array(dropping(x, training=True)) for _ in range(2))
    assert np.abs(first - array(plain(x))).max() > 0.01
    assert np.abs(first - second).max() > 0.01
    if "projection_dropout" in options:  # on the projection's output: what it dropped leaves the input bare
        assert 0.3 < (np.abs(first - x) < 1e-7).mean() < 0.7
    else:
        assert (np.abs(first - x) < 1e-7).mean() < 0.1


@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize("layer_scale", [None, 0.125])
def test_attention_with_and_without_shortcut_and_layer_scale(shortcut, layer_scale):
    x = numbers(*SHAPE)
    plain = built(MobileAttention(8, 2, 4, shortcut=False))
    layer = built(MobileAttention(8, 2, 4, shortcut=shortcut, layer_scale=layer_scale))
    factor = [] if layer_scale is None else [np.full(8, layer_scale, "float32")]
    layer.set_weights([*factor, *plain.get_weights()])
    close(layer(x), array(plain(x)) * (layer_scale or 1) + (x if shortcut else 0), 1e-5)


def test_attention_to_other_channels_has_no_shortcut():
    layer = built(MobileAttention(16, 2, 4))
    assert not layer.adds_shortcut
    assert tuple(layer(numbers(*SHAPE)).shape) == (2, 7, 5, 16)


def test_attention_projections_start_as_glorot():
    layer = MobileAttention(64, 4, 32)
    layer.build((1, 7, 7, 64))
    query = layer.query.get_weights()[0]
    limit = np.sqrt(6 / (64 + 128))
    assert 0.95 * limit < np.abs(query).max() <= limit


def attend_channels(layer, x, *downs):
    """Attention between the channels of each head by its definition, after `downs` of query, key and value."""
    parts = [array(part(x)) for part in (layer.query, layer.key, layer.value)]
    if downs:
        parts = [array(down(part)) for down, part in zip(downs, parts, strict=True)]
    batch, height, width, channels = parts[0].shape
    query, key, value = (part.reshape(batch, height * width, layer.heads, -1) for part in parts)
    weights = softmax(np.einsum("bphc,bphd->bhcd", query, key))  # between the channels of each head, unscaled
    return np.einsum("bhcd,bphd->bphc", weights, value).reshape(batch, height, width, channels)


def test_channel_attention_against_its_definition():
    x = numbers(*SHAPE)
    layer = built(ChannelAttention(2))
    close(layer(x), attend_channels(layer, x), 1e-4)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("strides, dilation", [(2, 1), (1, 1), (1, 2)])
def test_channel_attention_convolves_its_query_key_and_value_again(strides, dilation, padding):
    x = numbers(*SHAPE)
    layer = built(ChannelAttention(2, strides, downsample=True, dilation_rate=dilation, padding=padding))
    expected = attend_channels(layer, x, layer.query_down, layer.kv_down, layer.kv_down)
    assert expected.shape == ((2, 4, 3, 8) if strides == 2 else SHAPE)
    close(layer(x), expected, 1e-4)
    for down in (layer.query_down, layer.kv_down):
        assert (down.kernel_size, down.strides, down.dilation_rate, down.padding) == (3, strides, dilation, padding)


def test_channel_attention_without_its_stride_has_the_same_variables():
    strided, dilated = built(ChannelAttention(2, 2)), built(ChannelAttention(2, 1, downsample=True, dilation_rate=2))
    names = ("query_down", "kv_down", "query", "key", "value")
    for layer in (strided, dilated):
        assert [w.path.split("/")[-2:] for w in layer.weights] == [
            [name, part] for name in names for part in ("kernel", "bias")
        ]
    assert [w.shape for w in strided.weights] == [w.shape for w in dilated.weights]
