"""Convolutions, normalization and small layers compared with Keras or NumPy."""

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
from tests.common.layers import SHAPE, assert_close, build_layer, random_array, randomize, to_numpy

# --- convolution ------------------------------------------------------------------------------------------------------


def numpy_convolution(x, kernel, stride, before, size, dilation=1):
    """Compute a convolution in NumPy, with `before` zeros above and left of `x` and outputs of `size`."""
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
def test_convolution_matches_numpy(depthwise, padding, kernel_size, stride, dilation):
    x = random_array(2, 7, 6, 8)  # an odd and an even size
    layer = ConvNormActivation(
        None if depthwise else 8, kernel_size, stride, dilation_rate=dilation, padding=padding, normalization=None
    )
    layer = build_layer(layer, x.shape)
    kernel = to_numpy(layer.kernel)
    if depthwise:
        kernel = kernel[..., 0][..., None] * np.eye(8, dtype="float32")
    size = tuple(-(-n // stride) for n in x.shape[1:3])
    reach = dilation * (kernel_size - 1)
    if padding == "symmetric":
        before = (reach // 2, reach // 2)
    else:  # the padding is split in half, with the smaller half above and left
        before = tuple(
            max(0, (out - 1) * stride + reach + 1 - n) // 2 for n, out in zip(x.shape[1:3], size, strict=True)
        )
    assert_close(layer(x), numpy_convolution(x, kernel, stride, before, size, dilation), 1e-4)


def test_large_dense_convolution_matches_keras():
    # Enough channels that the sum over them is computed in parts.
    x = random_array(1, 5, 5, 96)
    layer = build_layer(ConvNormActivation(8, 3, normalization=None), x.shape)
    keras_layer = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)
    keras_layer.build(x.shape)
    keras_layer.set_weights(layer.get_weights())
    assert_close(layer(x), keras_layer(x), 1e-4)


def test_bias_precedes_normalization_and_activation_follows():
    x = random_array(*SHAPE)
    layer = build_layer(ConvNormActivation(8, 1, use_bias=True, activation="relu"))
    kernel, bias, gamma, beta, mean, variance = layer.get_weights()
    y = np.einsum("bhwc,cf->bhwf", x, kernel[0, 0]) + bias
    y = (y - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    assert_close(layer(x), np.maximum(y, 0))


@pytest.mark.parametrize("height, width", [(6, 8), (7, 5)])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("antialias", ["average", "blur"])
def test_antialiasing_downsamples_after_the_activation(antialias, padding, height, width):
    x = random_array(2, height, width, 8)
    layer = build_layer(ConvNormActivation(8, 3, 2, antialias=antialias, padding=padding, activation="relu"), x.shape)
    full = build_layer(ConvNormActivation(8, 3, 1, padding=padding, activation="relu"), x.shape)
    full.set_weights(layer.get_weights())
    y = to_numpy(full(x))
    if antialias == "average":
        even = y[:, : height // 2 * 2, : width // 2 * 2]
        expected = sum(even[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    else:
        window = np.outer([1, 2, 1], [1, 2, 1]) / 16
        size = (-(-height // 2), -(-width // 2))
        before = (1, 1) if padding == "symmetric" else (height % 2, width % 2)
        expected = numpy_convolution(y, window[..., None, None] * np.eye(8), 2, before, size)
    assert_close(layer(x), expected, 1e-4)


def test_antialiasing_does_not_change_unstrided_convolutions():
    x = random_array(*SHAPE)
    plain, antialiased = build_layer(ConvNormActivation(8, 3)), build_layer(ConvNormActivation(8, 3, antialias="blur"))
    assert_close(antialiased(x), plain(x), 1e-6)


def test_default_initial_values():
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
def test_kernel_distribution_matches_the_keras_initializer(initializer, filters):
    layers = [ConvNormActivation(filters, 5, kernel_initializer=initializer) for _ in range(2)]
    for layer in layers:
        layer.build((1, 7, 7, 640))
    kernel, repeated = (np.asarray(layer.get_weights()[0]) for layer in layers)
    np.testing.assert_array_equal(kernel, repeated, err_msg="equal seeds must give equal kernels")
    expected = keras.ops.convert_to_numpy(initializer(kernel.shape))
    quantiles = np.linspace(0.05, 0.95, 19)
    error = np.abs(np.quantile(kernel, quantiles) - np.quantile(expected, quantiles)).max()
    # For at least 16,000 values. Normal and uniform distributions differ by 0.19 standard deviations.
    assert error < 0.08 * expected.std()


# --- normalization ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_matches_keras(training):
    x = random_array(*SHAPE) * 3 + 1
    layer = build_layer(NormActivation(norm_epsilon=1e-2, norm_momentum=0.8))
    keras_layer = keras.layers.BatchNormalization(epsilon=1e-2, momentum=0.8)
    keras_layer.build(SHAPE)
    keras_layer.set_weights(layer.get_weights())
    before = layer.get_weights()
    assert_close(layer(x, training=training), keras_layer(x, training=training))
    for value, expected in zip(layer.get_weights(), keras_layer.get_weights(), strict=True):
        assert_close(value, expected)
    moved = [not np.allclose(old, new) for old, new in zip(before, layer.get_weights(), strict=True)]
    assert moved == [False, False, training, training]


def test_moving_variance_is_biased():
    x = random_array(1, 2, 1, 8)
    layer = NormActivation(norm_momentum=0.0)
    layer(x, training=True)
    assert_close(layer.moving_variance, x.var(axis=(0, 1, 2)))


def test_frozen_batch_norm_uses_and_keeps_moving_statistics():
    x = random_array(*SHAPE) * 3 + 1
    layer = build_layer(NormActivation())
    expected, before = to_numpy(layer(x, training=False)), layer.get_weights()
    layer.trainable = False
    assert_close(layer(x, training=True), expected)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    layer.trainable = True
    assert np.abs(to_numpy(layer(x, training=True)) - expected).max() > 0.1


@pytest.mark.parametrize("channels, groups", [(8, 1), (16, 2), (12, 2), (7, 1)])
def test_group_norm_matches_keras(channels, groups):
    x = random_array(2, 7, 5, channels) * 3 + 1
    layer = build_layer(NormActivation(normalization="group", norm_epsilon=1e-2), x.shape)
    keras_layer = keras.layers.GroupNormalization(groups, epsilon=1e-2)
    keras_layer.build(x.shape)
    keras_layer.set_weights(layer.get_weights())
    assert_close(layer(x, training=True), keras_layer(x), 1e-4)


def test_layer_norm_matches_keras():
    x = random_array(*SHAPE) * 3 + 1
    layer = build_layer(NormActivation(normalization="layer", norm_epsilon=1e-2))
    keras_layer = keras.layers.LayerNormalization(epsilon=1e-2)
    keras_layer.build(SHAPE)
    keras_layer.set_weights(layer.get_weights())
    assert_close(layer(x, training=True), keras_layer(x), 1e-4)


def test_layer_without_normalization_only_activates():
    x = random_array(*SHAPE)
    layer = build_layer(NormActivation(normalization=None, activation="relu"))
    assert layer.weights == []
    assert_close(layer(x), np.maximum(x, 0), 0)


@pytest.mark.parametrize("normalization", ["batch", "group", "layer"])
def test_statistics_are_not_computed_in_half_precision(normalization):
    x = random_array(*SHAPE) + 300  # the squares would overflow in float16
    layer = NormActivation(normalization=normalization, dtype="mixed_float16")
    y = to_numpy(layer(ops.convert_to_tensor(x, "float16"), training=True)).astype("float32")
    assert np.isfinite(y).all()
    exact = NormActivation(normalization=normalization)
    assert_close(y, exact(x.astype("float16").astype("float32"), training=True), 1e-2)


def test_statistics_are_computed_in_float64_with_float64_policy():
    # Round the inputs to float32, since some backends convert arrays to float32 when they create a tensor.
    x = (np.random.default_rng(0).standard_normal(SHAPE) + 1e5).astype("float32").astype("float64")
    layer = NormActivation(dtype="float64", norm_epsilon=1e-6)
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-6)
    if keras.backend.backend() != "tensorflow":
        pytest.skip("JAX and the mean of Keras's PyTorch backend compute in float32")
    assert_close(layer(ops.convert_to_tensor(x, "float64"), training=True), expected, 1e-8)


# --- squeeze-and-excitation, layer scale, stochastic depth ------------------------------------------------------------


def test_squeeze_and_excitation_matches_numpy():
    x = random_array(*SHAPE)
    layer = build_layer(SqueezeExcite(6))
    reduce, reduce_bias, expand, expand_bias = layer.get_weights()
    hidden = np.maximum(x.mean((1, 2)) @ reduce[0, 0] + reduce_bias, 0)
    gate = np.clip((hidden @ expand[0, 0] + expand_bias) / 6 + 0.5, 0, 1)
    assert_close(layer(x), x * gate[:, None, None])


def test_squeeze_and_excitation_accepts_other_activations():
    x = random_array(*SHAPE)
    layer = build_layer(SqueezeExcite(6, activation="tanh", gate="sigmoid"))
    reduce, reduce_bias, expand, expand_bias = layer.get_weights()
    hidden = np.tanh(x.mean((1, 2)) @ reduce[0, 0] + reduce_bias)
    gate = 1 / (1 + np.exp(-(hidden @ expand[0, 0] + expand_bias)))
    assert_close(layer(x), x * gate[:, None, None])


def test_layer_scale_multiplies_each_channel():
    x = random_array(*SHAPE)
    layer = LayerScale(0.25)
    assert_close(layer(x), x * 0.25, 0)
    randomize(layer)
    assert_close(layer(x), x * to_numpy(layer.gamma), 1e-6)


def test_drop_path_drops_whole_images_and_keeps_the_expectation():
    x = np.ones((4000, 1, 1, 3), "float32")
    layer = DropPath(0.3, seed=1)
    y = to_numpy(layer(x, training=True))
    dropped = (y == 0).all(axis=(1, 2, 3))
    np.testing.assert_allclose(dropped.mean(), 0.3, atol=0.03)
    np.testing.assert_allclose(y[~dropped], 1 / 0.7, rtol=1e-5)  # all channels of an image are kept together
    np.testing.assert_allclose(y.mean(), 1.0, atol=0.05)


def test_drop_path_differs_between_calls():
    x = np.ones((64, 1, 1, 1), "float32")
    layer = DropPath(0.5, seed=1)
    assert (to_numpy(layer(x, training=True)) != to_numpy(layer(x, training=True))).any()


@pytest.mark.parametrize("rate, training", [(0.9, False), (0.9, None), (0.0, True)])
def test_drop_path_is_the_identity_in_inference_and_at_rate_0(rate, training):
    x = random_array(*SHAPE)
    np.testing.assert_array_equal(to_numpy(DropPath(rate)(x, training=training)), x)


def test_drop_path_config_round_trip():
    layer = DropPath(0.3, seed=5, name="mine")
    assert DropPath.from_config(layer.get_config()).get_config() == layer.get_config()
    x = np.ones((64, 1, 1, 1), "float32")
    assert_close(DropPath.from_config(layer.get_config())(x, training=True), layer(x, training=True), 0)
