"""What every layer promises: its config, shapes, data formats, weights' names and dtypes; and what it rejects."""

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
from tests.common.layers import LAYERS, SHAPE, array, built, channels_first, close, mild_numbers, numbers, randomize


def slow_under_jax(test):
    """Mark a test of unknown sizes, which JAX never sees: it compiles for each size anew."""
    return pytest.mark.slow(test) if keras.backend.backend() == "jax" else test


every_layer = pytest.mark.parametrize("name", LAYERS)


# --- what every layer promises ----------------------------------------------------------------------------------------


@pytest.mark.neutral
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


@pytest.mark.neutral
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
@slow_under_jax
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
    x = mild_numbers(name)
    y = layer(ops.convert_to_tensor(x, layer.compute_dtype))
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    assert {variable.dtype for variable in layer.weights} <= {layer.variable_dtype}
    expected = array(reference(x))
    tolerance = {"mixed_bfloat16": 0.05, "mixed_float16": 0.02}[policy]
    assert np.abs(array(ops.cast(y, "float32")) - expected).max() <= tolerance * np.abs(expected).max()


# --- bad arguments ----------------------------------------------------------------------------------------------------


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
        (lambda: ChannelAttention(3).build(SHAPE), "heads=3 must divide the channels, 8"),
        (lambda: ChannelAttention(2, 3), "strides=3"),
        (lambda: SqueezeExcite(0), "squeeze_filters=0"),
        (lambda: DropPath(1.0), r"rate=1\.0 .*\[0, 1\)"),
    ],
)
def test_a_wrong_argument_names_itself_and_its_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
