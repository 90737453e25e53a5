"""Convolutions, normalization and the small layers around them, against Keras's layers or NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from mobilenet_common.layers import (
    ConvNormActivation,
    DropPath,
    LayerScale,
    NormActivation,
    SqueezeExcite,
)
from tests.common.layers import SHAPE, array, built, close, numbers, randomize

# --- convolution ------------------------------------------------------------------------------------------------------


def convolve(x, kernel, stride, before, size, dilation=1):
    """Convolution by its definition: `before` zeros stand above and left of `x`, `size` values come out a side."""
    rows, columns, _, filters = kernel.shape
    reach = dilation * (rows - 1) + stride * max(size) + 1
    padded = np.pad(x, ((0, 0), (before[0], reach), (before[1], reach), (0, 0)))
    y = np.zeros((x.shape[0], *size, filters), "float64")
    for i in range(size[0]):
        for j in range(size[1]):
            top, left = i * stride, j * stride
            patch = padded[:, top : top + dilation * rows : dilation, left : left + dilation * columns : dilation]
            y[:, i, j] = np.einsum("bijc,ijcf->bf", patch, kernel.astype("float64"))
    return y


@pytest.mark.parametrize("stride, dilation", [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolution_against_its_definition(depthwise, padding, kernel_size, stride, dilation):
    x = numbers(2, 7, 6, 8)  # odd and even
    layer = ConvNormActivation(
        None if depthwise else 8, kernel_size, stride, dilation_rate=dilation, padding=padding, normalization=None
    )
    layer = built(layer, x.shape)
    kernel = array(layer.kernel)
    if depthwise:
        kernel = kernel[..., 0][..., None] * np.eye(8, dtype="float32")
    size = tuple(-(-n // stride) for n in x.shape[1:3])
    reach = dilation * (kernel_size - 1)
    if padding == "symmetric":
        before = (reach // 2, reach // 2)
    else:  # half of what the windows need beyond the image, the smaller half above and left
        before = tuple(
            max(0, (out - 1) * stride + reach + 1 - n) // 2 for n, out in zip(x.shape[1:3], size, strict=True)
        )
    close(layer(x), convolve(x, kernel, stride, before, size, dilation), 1e-4)


def test_a_large_dense_convolution_against_keras():
    # Wide enough for the sum over its channels to be taken in parts.
    x = numbers(1, 5, 5, 96)
    layer = built(ConvNormActivation(8, 3, normalization=None), x.shape)
    theirs = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)
    theirs.build(x.shape)
    theirs.set_weights(layer.get_weights())
    close(layer(x), theirs(x), 1e-4)


def test_bias_comes_before_normalization_and_activation_after():
    x = numbers(*SHAPE)
    layer = built(ConvNormActivation(8, 1, use_bias=True, activation="relu"))
    kernel, bias, gamma, beta, mean, variance = layer.get_weights()
    y = np.einsum("bhwc,cf->bhwf", x, kernel[0, 0]) + bias
    y = (y - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    close(layer(x), np.maximum(y, 0))


@pytest.mark.parametrize("height, width", [(6, 8), (7, 5)])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("antialias", ["average", "blur"])
def test_antialiasing_halves_after_the_activation(antialias, padding, height, width):
    x = numbers(2, height, width, 8)
    layer = built(ConvNormActivation(8, 3, 2, antialias=antialias, padding=padding, activation="relu"), x.shape)
    full = built(ConvNormActivation(8, 3, 1, padding=padding, activation="relu"), x.shape)
    full.set_weights(layer.get_weights())
    y = array(full(x))
    if antialias == "average":
        even = y[:, : height // 2 * 2, : width // 2 * 2]
        expected = sum(even[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    else:
        window = np.outer([1, 2, 1], [1, 2, 1]) / 16
        size = (-(-height // 2), -(-width // 2))
        before = (1, 1) if padding == "symmetric" else (height % 2, width % 2)
        expected = convolve(y, window[..., None, None] * np.eye(8), 2, before, size)
    close(layer(x), expected, 1e-4)


def test_antialiasing_leaves_a_convolution_without_stride_alone():
    x = numbers(*SHAPE)
    plain, antialiased = built(ConvNormActivation(8, 3)), built(ConvNormActivation(8, 3, antialias="blur"))
    close(antialiased(x), plain(x), 1e-6)


def test_initial_values():
    layer = ConvNormActivation(256, 3, use_bias=True)
    layer.build((1, 7, 7, 32))
    depthwise = ConvNormActivation(None, 5)
    depthwise.build((1, 7, 7, 512))
    kernel, bias, gamma, beta, mean, variance = layer.get_weights()
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 256)), rtol=0.02)
    np.testing.assert_allclose(depthwise.get_weights()[0].std(), np.sqrt(2 / 25), rtol=0.05)
    assert not bias.any() and not beta.any() and not mean.any()
    assert (gamma == 1).all() and (variance == 1).all()


@pytest.mark.parametrize("filters", [None, 96])
@pytest.mark.parametrize(
    "initializer",
    [
        keras.initializers.GlorotUniform(seed=1),
        keras.initializers.HeNormal(seed=1),
        keras.initializers.VarianceScaling(3.0, "fan_in", "untruncated_normal", seed=1),
        keras.initializers.VarianceScaling(0.5, "fan_avg", "uniform", seed=1),
        keras.initializers.RandomNormal(stddev=0.3, seed=1),
    ],
    ids=lambda initializer: type(initializer).__name__,
)
def test_a_kernel_is_distributed_as_keras_draws_it(initializer, filters):
    layers = [ConvNormActivation(filters, 5, kernel_initializer=initializer) for _ in range(2)]
    for layer in layers:
        layer.build((1, 7, 7, 640))
    ours, again = (np.asarray(layer.get_weights()[0]) for layer in layers)
    np.testing.assert_array_equal(ours, again, err_msg="the seed decides")
    theirs = keras.ops.convert_to_numpy(initializer(ours.shape))
    quantiles = np.linspace(0.05, 0.95, 19)
    error = np.abs(np.quantile(ours, quantiles) - np.quantile(theirs, quantiles)).max()
    # Of 16,000 numbers; a normal and a uniform distribution are 0.19 apart.
    assert error < 0.08 * theirs.std()


# --- normalization ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_against_keras(training):
    x = numbers(*SHAPE) * 3 + 1
    ours = built(NormActivation(norm_epsilon=1e-2, norm_momentum=0.8))
    theirs = keras.layers.BatchNormalization(epsilon=1e-2, momentum=0.8)
    theirs.build(SHAPE)
    theirs.set_weights(ours.get_weights())
    before = ours.get_weights()
    close(ours(x, training=training), theirs(x, training=training))
    for our, their in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        close(our, their)
    moved = [not np.allclose(old, new) for old, new in zip(before, ours.get_weights(), strict=True)]
    assert moved == [False, False, training, training]


def test_the_moving_variance_is_the_biased_one():
    x = numbers(1, 2, 1, 8)
    layer = NormActivation(norm_momentum=0.0)
    layer(x, training=True)
    close(layer.moving_variance, x.var(axis=(0, 1, 2)))


def test_batch_norm_that_is_not_trainable_keeps_and_uses_its_statistics():
    x = numbers(*SHAPE) * 3 + 1
    layer = built(NormActivation())
    expected, before = array(layer(x, training=False)), layer.get_weights()
    layer.trainable = False
    close(layer(x, training=True), expected)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    layer.trainable = True
    assert np.abs(array(layer(x, training=True)) - expected).max() > 0.1


@pytest.mark.parametrize("channels, groups", [(8, 1), (16, 2), (12, 2), (7, 1)])
def test_group_norm_against_keras(channels, groups):
    x = numbers(2, 7, 5, channels) * 3 + 1
    ours = built(NormActivation(normalization="group", norm_epsilon=1e-2), x.shape)
    theirs = keras.layers.GroupNormalization(groups, epsilon=1e-2)
    theirs.build(x.shape)
    theirs.set_weights(ours.get_weights())
    close(ours(x, training=True), theirs(x), 1e-4)


def test_layer_norm_against_keras():
    x = numbers(*SHAPE) * 3 + 1
    ours = built(NormActivation(normalization="layer", norm_epsilon=1e-2))
    theirs = keras.layers.LayerNormalization(epsilon=1e-2)
    theirs.build(SHAPE)
    theirs.set_weights(ours.get_weights())
    close(ours(x, training=True), theirs(x), 1e-4)


def test_without_normalization_there_is_only_the_activation():
    x = numbers(*SHAPE)
    layer = built(NormActivation(normalization=None, activation="relu"))
    assert layer.weights == []
    close(layer(x), np.maximum(x, 0), 0)


@pytest.mark.parametrize("normalization", ["batch", "group", "layer"])
def test_statistics_are_not_taken_in_half_precision(normalization):
    x = numbers(*SHAPE) + 300  # the squares would overflow in float16
    layer = NormActivation(normalization=normalization, dtype="mixed_float16")
    y = array(layer(ops.convert_to_tensor(x, "float16"), training=True)).astype("float32")
    assert np.isfinite(y).all()
    exact = NormActivation(normalization=normalization)
    close(y, exact(x.astype("float16").astype("float32"), training=True), 1e-2)


def test_statistics_are_taken_in_double_precision_where_the_policy_is():
    # Rounded to float32, which some backends pass arrays through on their way to a tensor.
    x = (np.random.default_rng(0).standard_normal(SHAPE) + 1e5).astype("float32").astype("float64")
    layer = NormActivation(dtype="float64", norm_epsilon=1e-6)
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-6)
    if keras.backend.backend() != "tensorflow":
        pytest.skip("JAX, and the mean of Keras's PyTorch backend, compute in float32")
    close(layer(ops.convert_to_tensor(x, "float64"), training=True), expected, 1e-8)


# --- squeeze-and-excitation, layer scale, stochastic depth ------------------------------------------------------------


def test_squeeze_and_excitation_against_its_definition():
    x = numbers(*SHAPE)
    layer = built(SqueezeExcite(6))
    reduce, reduce_bias, expand, expand_bias = layer.get_weights()
    hidden = np.maximum(x.mean((1, 2)) @ reduce[0, 0] + reduce_bias, 0)
    gate = np.clip((hidden @ expand[0, 0] + expand_bias) / 6 + 0.5, 0, 1)
    close(layer(x), x * gate[:, None, None])


def test_squeeze_and_excitation_takes_other_activations():
    x = numbers(*SHAPE)
    layer = built(SqueezeExcite(6, activation="tanh", gate="sigmoid"))
    reduce, reduce_bias, expand, expand_bias = layer.get_weights()
    hidden = np.tanh(x.mean((1, 2)) @ reduce[0, 0] + reduce_bias)
    gate = 1 / (1 + np.exp(-(hidden @ expand[0, 0] + expand_bias)))
    close(layer(x), x * gate[:, None, None])


def test_layer_scale_multiplies_each_channel():
    x = numbers(*SHAPE)
    layer = LayerScale(0.25)
    close(layer(x), x * 0.25, 0)
    randomize(layer)
    close(layer(x), x * array(layer.gamma), 1e-6)


def test_drop_path_drops_whole_images_and_keeps_the_expectation():
    x = np.ones((4000, 1, 1, 3), "float32")
    layer = DropPath(0.3, seed=1)
    y = array(layer(x, training=True))
    dropped = (y == 0).all(axis=(1, 2, 3))
    np.testing.assert_allclose(dropped.mean(), 0.3, atol=0.03)
    np.testing.assert_allclose(y[~dropped], 1 / 0.7, rtol=1e-5)  # all channels of an image together
    np.testing.assert_allclose(y.mean(), 1.0, atol=0.05)


def test_drop_path_draws_anew_each_time():
    x = np.ones((64, 1, 1, 1), "float32")
    layer = DropPath(0.5, seed=1)
    assert (array(layer(x, training=True)) != array(layer(x, training=True))).any()


@pytest.mark.parametrize("rate, training", [(0.9, False), (0.9, None), (0.0, True)])
def test_drop_path_is_inert_in_inference_and_at_rate_0(rate, training):
    x = numbers(*SHAPE)
    np.testing.assert_array_equal(array(DropPath(rate)(x, training=training)), x)


def test_drop_path_config():
    layer = DropPath(0.3, seed=5, name="mine")
    assert DropPath.from_config(layer.get_config()).get_config() == layer.get_config()
    x = np.ones((64, 1, 1, 1), "float32")
    close(DropPath.from_config(layer.get_config())(x, training=True), layer(x, training=True), 0)
