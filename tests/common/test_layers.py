"""Configs, shapes, data formats, weight names, dtypes and argument validation of every layer."""

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
    MobileAttention,
    NormActivation,
    SqueezeExcite,
    UniversalInvertedBottleneck,
)
from tests.common.layers import (
    LAYERS,
    SHAPE,
    assert_close,
    build_layer,
    random_array,
    randomize,
    small_random_array,
    to_channels_first,
    to_numpy,
)


def slow_under_jax(test):
    """Mark a test of dynamic sizes as slow with JAX, which compiles for every size."""
    return pytest.mark.slow(test) if keras.backend.backend() == "jax" else test


every_layer = pytest.mark.parametrize("name", LAYERS)


# --- common behavior --------------------------------------------------------------------------------------------------


@pytest.mark.neutral
@every_layer
def test_config_round_trip_gives_the_same_layer(name):
    layer = LAYERS[name](name="mine", dtype="float32")
    config = layer.get_config()
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(copy) is type(layer)
    assert copy.get_config() == config
    assert copy.name == "mine"
    x = random_array(*SHAPE)
    layer, copy = build_layer(layer), build_layer(copy)
    copy.set_weights(layer.get_weights())
    assert_close(copy(x), layer(x), 1e-6)


@pytest.mark.neutral
@every_layer
@pytest.mark.parametrize("size", [(7, 5), (1, 1), (2, 9)])
def test_compute_output_shape_matches_the_output(name, size):
    layer = LAYERS[name]()
    if "average" in name and min(size) < 2:
        pytest.skip("a 2×2 mean needs two pixels")
    shape = (2, *size, 8)
    computed = layer.compute_output_shape(shape)
    assert tuple(computed) == tuple(layer(random_array(*shape)).shape)
    assert tuple(layer.compute_output_shape((None, None, None, 8))) == (None, None, None, computed[-1])


@every_layer
def test_both_data_formats_agree(name):
    last, first = LAYERS[name](data_format="channels_last"), LAYERS[name](data_format="channels_first")
    x = random_array(*SHAPE)
    last = build_layer(last)
    first_shape = (SHAPE[0], SHAPE[3], *SHAPE[1:3])
    first.build(first_shape)
    first.set_weights(last.get_weights())
    y = first(to_channels_first(x))
    assert tuple(first.compute_output_shape(first_shape)) == tuple(y.shape)
    expected = to_channels_first(to_numpy(last(x)))
    # Relative to the largest output: small outputs are differences of large ones, which lose digits on some processors.
    scale = np.abs(expected).max()
    assert_close(to_numpy(y) / scale, expected / scale)


@every_layer
@slow_under_jax
def test_layer_accepts_any_height_and_width(name):
    layer = LAYERS[name]()
    model = keras.Sequential([keras.Input((None, None, 8)), layer])
    randomize(layer)
    for shape in (SHAPE, (1, 6, 9, 8)):
        x = random_array(*shape)
        assert_close(model.predict(x, verbose=0), layer(x))


@every_layer
def test_weights_have_standard_names(name):
    layer = build_layer(LAYERS[name](name="mine"))
    paths = [variable.path for variable in layer.weights]
    assert len(set(paths)) == len(paths)
    allowed = {"kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"}
    assert {path.split("/")[-1] for path in paths} <= allowed
    assert all(variable.trainable != variable.name.startswith("moving_") for variable in layer.weights)


@pytest.mark.parametrize(
    "name, policy",
    [
        *((name, "mixed_bfloat16") for name in LAYERS),
        *((name, "mixed_float16") for name in ("conv", "inverted", "attention_down", "channel_attention")),
    ],
)
def test_mixed_precision_matches_float32(name, policy):
    layer = build_layer(LAYERS[name](dtype=policy))
    reference = build_layer(LAYERS[name](dtype="float32"))
    reference.set_weights(layer.get_weights())
    x = small_random_array(name)
    y = layer(ops.convert_to_tensor(x, layer.compute_dtype))
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    assert {variable.dtype for variable in layer.weights} <= {layer.variable_dtype}
    expected = to_numpy(reference(x))
    tolerance = {"mixed_bfloat16": 0.05, "mixed_float16": 0.02}[policy]
    assert np.abs(to_numpy(ops.cast(y, "float32")) - expected).max() <= tolerance * np.abs(expected).max()


# --- invalid arguments ------------------------------------------------------------------------------------------------


@pytest.mark.neutral
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
        (lambda: ChannelAttention(3).build(SHAPE), "heads=3 .*it must divide the number of input channels, 8"),
        (lambda: ChannelAttention(2, 3), "strides=3"),
        (lambda: SqueezeExcite(0), "squeeze_filters=0"),
        (lambda: DropPath(1.0), r"rate=1\.0 .*\[0, 1\)"),
    ],
)
def test_invalid_argument_is_reported_with_its_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
