"""Spatial attention and channel attention compared with NumPy implementations."""

import numpy as np
import pytest

from mobilenet_common.layers import (
    ChannelAttention,
    MobileAttention,
)
from tests.common.layers import SHAPE, assert_close, build_layer, random_array, to_numpy


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def numpy_attention(query, key, value, heads, multi_query):
    """Compute spatial attention of channels-last maps in NumPy."""
    batch, height, width, _ = query.shape

    def split_heads(x, count):
        return x.reshape(batch, -1, count, x.shape[-1] // count).transpose(0, 2, 1, 3)

    q = split_heads(query, heads)
    k, v = (split_heads(x, 1 if multi_query else heads) for x in (key, value))
    weights = softmax(q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1]))
    return (weights @ v).transpose(0, 2, 1, 3).reshape(batch, height, width, -1)


@pytest.mark.parametrize("value_size", [None, 6])
@pytest.mark.parametrize("multi_query", [True, False])
@pytest.mark.parametrize("kv", [{}, {"kv_kernel_size": 3}, {"kv_kernel_size": 5, "kv_strides": 2}])
def test_attention_matches_numpy(kv, multi_query, value_size):
    x = random_array(*SHAPE)
    layer = build_layer(MobileAttention(8, 2, 4, value_size, multi_query=multi_query, **kv))
    y = layer.norm(x)
    query = to_numpy(layer.query(y))
    key = to_numpy(layer.key(layer.key_down(y) if kv else y))
    value = to_numpy(layer.value(layer.value_down(y) if kv else y))
    assert query.shape[-1] == 8
    assert key.shape[1:3] == ((4, 3) if "kv_strides" in kv else (7, 5))
    assert (key.shape[-1], value.shape[-1]) == ((4, value_size or 4) if multi_query else (8, 2 * (value_size or 4)))
    attended = numpy_attention(query, key, value, 2, multi_query)
    assert_close(layer(x), x + to_numpy(layer.output_projection(attended)), 1e-4)


def test_query_key_and_value_have_separate_kernels():
    layer = build_layer(MobileAttention(8, 2, 4, kv_kernel_size=3))
    assert (
        len({id(part.kernel) for part in (layer.query, layer.key, layer.value, layer.key_down, layer.value_down)}) == 5
    )


def patch_means(x, rows, columns):
    """Return the means of patches. Patches at the bottom and right edges average the pixels inside the image."""
    parts = [
        [x[:, i : i + rows, j : j + columns].mean((1, 2)) for j in range(0, x.shape[2], columns)]
        for i in range(0, x.shape[1], rows)
    ]
    return np.stack([np.stack(line, 1) for line in parts], 1)


def upsample(x, factor, axis):
    """Upsample one axis by bilinear interpolation between pixel centers. Edge values extend beyond the edges."""
    size = x.shape[axis]
    position = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, size - 1)
    fraction = (position - low).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return np.take(x, low, axis) * (1 - fraction) + np.take(x, high, axis) * fraction


@pytest.mark.parametrize("strides", [(2, 2), (1, 3), (3, 2), (8, 8)])
def test_query_strides_need_not_divide_the_size(strides):
    x = random_array(*SHAPE)
    layer = build_layer(MobileAttention(8, 2, 4, query_strides=strides))
    y = layer.norm(x)
    pooled = patch_means(to_numpy(y), *strides)
    query = to_numpy(layer.query(layer.query_norm(pooled)))
    attended = numpy_attention(query, to_numpy(layer.key(y)), to_numpy(layer.value(y)), 2, True)
    for axis, factor in zip((1, 2), strides, strict=True):
        attended = upsample(attended, factor, axis)
    attended = attended[:, :7, :5].astype("float32")
    assert_close(layer(x), x + to_numpy(layer.output_projection(attended)), 1e-4)


def test_single_query_stride_applies_to_both_axes():
    assert MobileAttention(8, 2, 4, query_strides=2).query_strides == (2, 2)
    assert MobileAttention(8, 2, 4).query_norm is None


@pytest.mark.parametrize("options", [{"attention_dropout": 0.5}, {"projection_dropout": 0.5}])
def test_attention_dropout_is_active_only_in_training(options):
    x = random_array(*SHAPE)
    layer, plain = (build_layer(MobileAttention(8, 2, 4, normalization=None, **o)) for o in (options, {}))
    layer.set_weights(plain.get_weights() + layer.get_weights()[len(plain.get_weights()) :])
    assert_close(layer(x, training=False), plain(x), 1e-6)
    first, second = (to_numpy(layer(x, training=True)) for _ in range(2))
    assert np.abs(first - to_numpy(plain(x))).max() > 0.01
    assert np.abs(first - second).max() > 0.01
    if "projection_dropout" in options:  # where the projection's output is dropped, only the shortcut remains
        assert 0.3 < (np.abs(first - x) < 1e-7).mean() < 0.7
    else:
        assert (np.abs(first - x) < 1e-7).mean() < 0.1


@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize("layer_scale", [None, 0.125])
def test_attention_shortcut_and_layer_scale_are_optional(shortcut, layer_scale):
    x = random_array(*SHAPE)
    plain = build_layer(MobileAttention(8, 2, 4, shortcut=False))
    layer = build_layer(MobileAttention(8, 2, 4, shortcut=shortcut, layer_scale=layer_scale))
    gamma = [] if layer_scale is None else [np.full(8, layer_scale, "float32")]
    layer.set_weights([*gamma, *plain.get_weights()])
    assert_close(layer(x), to_numpy(plain(x)) * (layer_scale or 1) + (x if shortcut else 0), 1e-5)


def test_attention_that_changes_channels_has_no_shortcut():
    layer = build_layer(MobileAttention(16, 2, 4))
    assert not layer.adds_shortcut
    assert tuple(layer(random_array(*SHAPE)).shape) == (2, 7, 5, 16)


def test_attention_projections_use_glorot_initialization():
    layer = MobileAttention(64, 4, 32)
    layer.build((1, 7, 7, 64))
    query = layer.query.get_weights()[0]
    limit = np.sqrt(6 / (64 + 128))
    assert 0.95 * limit < np.abs(query).max() <= limit


def numpy_channel_attention(layer, x, *downs):
    """Compute channel attention in NumPy, after applying the layers `downs` to query, key and value."""
    parts = [to_numpy(part(x)) for part in (layer.query, layer.key, layer.value)]
    if downs:
        parts = [to_numpy(down(part)) for down, part in zip(downs, parts, strict=True)]
    batch, height, width, channels = parts[0].shape
    query, key, value = (part.reshape(batch, height * width, layer.heads, -1) for part in parts)
    weights = softmax(np.einsum("bphc,bphd->bhcd", query, key))  # among the channels of each head, unscaled
    return np.einsum("bhcd,bphd->bphc", weights, value).reshape(batch, height, width, channels)


def test_channel_attention_matches_numpy():
    x = random_array(*SHAPE)
    layer = build_layer(ChannelAttention(2))
    assert_close(layer(x), numpy_channel_attention(layer, x), 1e-4)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("strides, dilation", [(2, 1), (1, 1), (1, 2)])
def test_channel_attention_downsamples_query_key_and_value(strides, dilation, padding):
    x = random_array(*SHAPE)
    layer = build_layer(ChannelAttention(2, strides, downsample=True, dilation_rate=dilation, padding=padding))
    expected = numpy_channel_attention(layer, x, layer.query_down, layer.kv_down, layer.kv_down)
    assert expected.shape == ((2, 4, 3, 8) if strides == 2 else SHAPE)
    assert_close(layer(x), expected, 1e-4)
    for down in (layer.query_down, layer.kv_down):
        assert (down.kernel_size, down.strides, down.dilation_rate, down.padding) == (3, strides, dilation, padding)


def test_dilated_and_strided_channel_attention_have_equal_variables():
    strided, dilated = (
        build_layer(ChannelAttention(2, 2)),
        build_layer(ChannelAttention(2, 1, downsample=True, dilation_rate=2)),
    )
    names = ("query_down", "kv_down", "query", "key", "value")
    for layer in (strided, dilated):
        assert [w.path.split("/")[-2:] for w in layer.weights] == [
            [name, part] for name in names for part in ("kernel", "bias")
        ]
    assert [w.shape for w in strided.weights] == [w.shape for w in dilated.weights]
