"""Every layer by itself: shapes, configs, data formats, and values against Keras's layers or NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from mobilenet_common.layers import (
    ChannelAttention,
    ConvNormActivation,
    DepthwiseSeparable,
    DropPath,
    FusedInvertedBottleneck,
    InvertedResidual,
    LayerScale,
    MobileAttention,
    NormActivation,
    SqueezeExcite,
    UniversalInvertedBottleneck,
)

# Few sizes, used over and over: a backend compiles its operations for each.
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

every_layer = pytest.mark.parametrize("name", LAYERS)


def numbers(*shape, seed=0):
    """Standard normal numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def array(tensor):
    """A tensor of any backend as a NumPy array."""
    return ops.convert_to_numpy(tensor)


def close(actual, expected, tolerance=2e-5):
    """Assert equality up to rounding."""
    np.testing.assert_allclose(array(actual), array(expected), rtol=tolerance, atol=tolerance)


def randomize(layer, seed=1):
    """Give a built layer random weights, and batch norm statistics that are not the identity's."""
    generator = np.random.default_rng(seed)
    for variable in layer.weights:
        values = generator.standard_normal(tuple(variable.shape)) * 0.5
        if variable.name == "moving_variance":
            values = np.abs(values) + 0.5
        if variable.name != "seed_generator_state":
            variable.assign(values.astype("float32"))
    return layer


def built(layer, shape=SHAPE):
    """The layer, built for `shape` and with random weights."""
    layer.build(shape)
    return randomize(layer)


def channels_first(x):
    return np.transpose(x, (0, 3, 1, 2))


# --- what every layer promises ------------------------------------------------------------------------------------


@every_layer
def test_config_round_trip_gives_the_same_layer(name):
    layer = LAYERS[name](name="mine", dtype="float32")
    config = layer.get_config()
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(copy) is type(layer)
    assert copy.get_config() == config
    assert copy.name == "mine"
    x = numbers(*SHAPE)
    layer, copy = built(layer), built(copy)
    copy.set_weights(layer.get_weights())
    close(copy(x), layer(x), 1e-6)


@every_layer
@pytest.mark.parametrize("size", [(7, 5), (1, 1), (2, 9)])
def test_the_announced_shape_is_the_real_one(name, size):
    layer = LAYERS[name]()
    if "average" in name and min(size) < 2:
        pytest.skip("a 2×2 mean needs two pixels")
    shape = (2, *size, 8)
    announced = layer.compute_output_shape(shape)
    assert tuple(announced) == tuple(layer(numbers(*shape)).shape)
    assert tuple(layer.compute_output_shape((None, None, None, 8))) == (None, None, None, announced[-1])


@every_layer
def test_both_data_formats_agree(name):
    last, first = LAYERS[name](data_format="channels_last"), LAYERS[name](data_format="channels_first")
    x = numbers(*SHAPE)
    last = built(last)
    turned = (SHAPE[0], SHAPE[3], *SHAPE[1:3])
    first.build(turned)
    first.set_weights(last.get_weights())
    y = first(channels_first(x))
    assert tuple(first.compute_output_shape(turned)) == tuple(y.shape)
    close(y, channels_first(array(last(x))))


@every_layer
def test_free_height_and_width(name):
    layer = LAYERS[name]()
    model = keras.Sequential([keras.Input((None, None, 8)), layer])
    randomize(layer)
    for shape in (SHAPE, (1, 6, 9, 8)):
        x = numbers(*shape)
        close(model.predict(x, verbose=0), layer(x))


@every_layer
def test_weights_are_named_after_what_they_are(name):
    layer = built(LAYERS[name](name="mine"))
    paths = [variable.path for variable in layer.weights]
    assert len(set(paths)) == len(paths)
    known = {"kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"}
    assert {path.split("/")[-1] for path in paths} <= known
    assert all(variable.trainable != variable.name.startswith("moving_") for variable in layer.weights)


@pytest.mark.parametrize(
    "name, policy",
    [
        *((name, "mixed_bfloat16") for name in LAYERS),
        *((name, "mixed_float16") for name in ("conv", "inverted", "attention_down", "channel_attention")),
    ],
)
def test_dtype_policies(name, policy):
    layer = built(LAYERS[name](dtype=policy))
    reference = built(LAYERS[name](dtype="float32"))
    reference.set_weights(layer.get_weights())
    x = numbers(*SHAPE) / 2  # the softmax of large products, which is no part of this, would amplify the rounding
    y = layer(ops.convert_to_tensor(x, layer.compute_dtype))
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    assert {variable.dtype for variable in layer.weights} <= {layer.variable_dtype}
    expected = array(reference(x))
    tolerance = {"mixed_bfloat16": 0.05, "mixed_float16": 0.02}[policy]
    assert np.abs(array(ops.cast(y, "float32")) - expected).max() <= tolerance * np.abs(expected).max()


# --- convolution ----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("stride, dilation", [(1, 1), (1, 2), (2, 1)])
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
    else:  # half of what the windows need beyond the picture, the smaller half above and left
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


# --- normalisation --------------------------------------------------------------------------------------------------


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


# --- squeeze-and-excitation, layer scale, stochastic depth ----------------------------------------------------------


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


def test_drop_path_drops_whole_pictures_and_keeps_the_expectation():
    x = np.ones((4000, 1, 1, 3), "float32")
    layer = DropPath(0.3, seed=1)
    y = array(layer(x, training=True))
    dropped = (y == 0).all(axis=(1, 2, 3))
    np.testing.assert_allclose(dropped.mean(), 0.3, atol=0.03)
    np.testing.assert_allclose(y[~dropped], 1 / 0.7, rtol=1e-5)  # all channels of a picture together
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


# --- blocks ---------------------------------------------------------------------------------------------------------


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


# --- attention ------------------------------------------------------------------------------------------------------


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
    """Bilinear interpolation between pixel centres along one axis, the edge's value beyond the edge."""
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


def test_channel_attention_against_its_definition():
    x = numbers(*SHAPE)
    layer = built(ChannelAttention(2))
    query, key, value = (array(part(x)).reshape(2, 35, 2, 4) for part in (layer.query, layer.key, layer.value))
    weights = softmax(np.einsum("bphc,bphd->bhcd", query, key))  # between the channels of each head, unscaled
    close(layer(x), np.einsum("bhcd,bphd->bphc", weights, value).reshape(SHAPE), 1e-4)


def test_channel_attention_that_halves_its_map():
    x = numbers(*SHAPE)
    layer = built(ChannelAttention(2, 2))
    queried, attended = layer.query_down(x), layer.kv_down(x)
    assert tuple(queried.shape) == (2, 4, 3, 8)
    query, key, value = (
        array(part(y)).reshape(2, 12, 2, 4)
        for part, y in ((layer.query, queried), (layer.key, attended), (layer.value, attended))
    )
    weights = softmax(np.einsum("bphc,bphd->bhcd", query, key))
    close(layer(x), np.einsum("bhcd,bphd->bphc", weights, value).reshape(2, 4, 3, 8), 1e-4)


def test_channel_attention_without_its_stride_keeps_its_convolutions():
    strided, dilated = built(ChannelAttention(2, 2)), built(ChannelAttention(2, 1, downsample=True, dilation_rate=2))
    assert [w.shape for w in strided.weights] == [w.shape for w in dilated.weights]
    assert tuple(dilated(numbers(*SHAPE)).shape) == SHAPE
    assert dilated.query_down.dilation_rate == 2


# --- bad arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: NormActivation(normalization="instance"), "normalization='instance' .*'group'"),
        (lambda: NormActivation(norm_epsilon=0), "norm_epsilon=0"),
        (lambda: NormActivation(norm_momentum=1), "norm_momentum=1 "),
        (lambda: ConvNormActivation(0), "filters=0"),
        (lambda: ConvNormActivation(8, 4), "kernel_size=4 .* odd"),
        (lambda: ConvNormActivation(8, 3, 3), "strides=3"),
        (lambda: ConvNormActivation(8, dilation_rate=0), "dilation_rate=0"),
        (lambda: ConvNormActivation(8, padding="valid"), "padding='valid' .*'symmetric'"),
        (lambda: ConvNormActivation(8, antialias="max"), "antialias='max' .*'blur'"),
        (lambda: DepthwiseSeparable(8, 2), "kernel_size=2 .* odd"),
        (lambda: InvertedResidual(8, 0), "expanded_filters=0"),
        (lambda: InvertedResidual(8, 8, 2), "kernel_size=2 .* odd"),
        (lambda: InvertedResidual(8, 8, strides=4), "strides=4"),
        (lambda: InvertedResidual(8, 8, squeeze_filters=0), "squeeze_filters=0"),
        (lambda: InvertedResidual(8, 8, drop_path_rate=1), "drop_path_rate=1 "),
        (lambda: FusedInvertedBottleneck(8, 8, 6), "kernel_size=6 .* odd"),
        (lambda: UniversalInvertedBottleneck(8, 8, 2), "start_kernel_size=2 .* odd"),
        (lambda: UniversalInvertedBottleneck(8, 8, 0, 4), "middle_kernel_size=4 .* odd"),
        (lambda: UniversalInvertedBottleneck(8, 8, end_kernel_size=4), "end_kernel_size=4 .* odd"),
        (lambda: UniversalInvertedBottleneck(8, 8, 0, 0, 2), "strides=2 needs a depthwise convolution"),
        (lambda: MobileAttention(8, 0, 4), "heads=0"),
        (lambda: MobileAttention(8, 2, 0), "key_size=0"),
        (lambda: MobileAttention(8, 2, 4, 0), "value_size=0"),
        (lambda: MobileAttention(8, 2, 4, kv_kernel_size=4), "kv_kernel_size=4 .* odd"),
        (lambda: MobileAttention(8, 2, 4, kv_strides=2), "kv_strides=2 needs kv_kernel_size"),
        (lambda: MobileAttention(8, 2, 4, query_strides=(1, 2, 3)), r"query_strides=\(1, 2, 3\)"),
        (lambda: MobileAttention(8, 2, 4, query_strides=0), "query_strides=0"),
        (lambda: MobileAttention(8, 2, 4, attention_dropout=1), "attention_dropout=1 "),
        (lambda: MobileAttention(8, 2, 4, projection_dropout=-1), "projection_dropout=-1"),
        (lambda: MobileAttention(8, 2, 4, strides=2), "strides=2"),
        (lambda: ChannelAttention(3).build(SHAPE), "heads=3 must divide the channels, 8"),
        (lambda: ChannelAttention(2, 3), "strides=3"),
        (lambda: SqueezeExcite(0), "squeeze_filters=0"),
        (lambda: DropPath(1.0), r"rate=1\.0 .*\[0, 1\)"),
    ],
)
def test_a_wrong_argument_names_itself_and_its_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
