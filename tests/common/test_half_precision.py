"""Every floating-point dtype policy of Keras, in every layer and in whole models."""

import keras
import numpy as np
import pytest
from keras import ops

import mobilenet_zoo
from mobilenet_common import ops as own_ops
from mobilenet_common.architecture import Architecture, Attention, Conv, Head, Inverted, Universal
from mobilenet_common.layers import ConvNormActivation
from mobilenet_v4 import create_mobilenetv4
from tests.common.gradients import gradients
from tests.common.layers import LAYERS, SHAPE, channels_first, mild_numbers, numbers, randomize

BACKEND = keras.backend.backend()
# The largest deviation from float32, relative to the largest output.
TOLERANCES = {"float64": 1e-5, "float16": 1e-2, "mixed_float16": 1e-2, "bfloat16": 5e-2, "mixed_bfloat16": 5e-2}
HALF = ("float16", "bfloat16")
TINY = Architecture(
    name="tiny",
    stem=Conv(8, stride=2),
    stages=(
        (Inverted(3, 16, 16, squeeze=0.5, activation="hard_swish", stride=2),),
        (Attention(16, 2, 4, kv_kernel=3, kv_stride=2, query_stride=2), Universal(3, 0, 24, 24, stride=2)),
    ),
    head=Head(),
    layer_scale=0.5,
)


def array(tensor):
    """A tensor of any floating-point type as a NumPy array in float32."""
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def deviation(actual, expected):
    """The largest difference, relative to the largest expected value; NaN fails every comparison."""
    return np.abs(array(actual) - expected).max() / np.abs(expected).max()


def quick(names, kept):
    """Parameters, of which only `kept` run in the quick suite: under JAX, which compiles each, few."""
    return [pytest.param(name, marks=[] if name in kept else [pytest.mark.slow]) for name in names]


@pytest.mark.parametrize("data_format", quick(("channels_last", "channels_first"), ("channels_last",)))
@pytest.mark.parametrize("policy", quick(TOLERANCES, HALF))
@pytest.mark.parametrize("kind", quick(LAYERS, ("conv", "separable", "attention_down") if BACKEND == "jax" else LAYERS))
def test_a_layer_computes_as_in_float32(kind, policy, data_format):
    x = mild_numbers(kind)
    x, shape = (x, SHAPE) if data_format == "channels_last" else (channels_first(x), (2, 8, 7, 5))
    single, layer = (LAYERS[kind](data_format=data_format, dtype=dtype) for dtype in ("float32", policy))
    for one in (single, layer):
        one.build(shape)
        randomize(one)
    for training in (False, True):
        expected = array(single(ops.convert_to_tensor(x), training=training))
        y = layer(ops.convert_to_tensor(x), training=training)
        assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
        assert deviation(y, expected) < 2 * TOLERANCES[policy]


@pytest.mark.parametrize("policy", HALF)
def test_gradients_in_half_precision(policy):
    single, layer = (ConvNormActivation(8, 3, 2, activation="relu6", dtype=dtype) for dtype in ("float32", policy))
    for one in (single, layer):
        one.build(SHAPE)
    layer.kernel.assign(single.kernel)
    x = numbers(*SHAPE)
    (expected,) = gradients(lambda x: single(x, training=True), x)
    (found,) = gradients(lambda x: layer(ops.cast(x, policy), training=True), x)
    assert np.linalg.norm(found - expected) < 5 * TOLERANCES[policy] * np.linalg.norm(expected)


@pytest.mark.parametrize("policy", HALF)
def test_batch_norm_is_keras(policy):
    """Statistics are float32 whatever the variables' type, and the moving ones are rounded once."""
    layer = ConvNormActivation(8, 1, dtype=policy, norm_momentum=0.9)
    theirs = keras.layers.BatchNormalization(momentum=0.9, dtype=policy)
    x = ops.cast(300 + 100 * numbers(4, 7, 5, 8), policy)  # squares overflow in float16
    for one in (layer, theirs):
        one.build(SHAPE)
    layer.kernel.assign(np.eye(8)[None, None])
    for training in (True, False):
        expected = array(theirs(x, training=training))
        assert deviation(layer(x, training=training), expected) < TOLERANCES[policy]
    for name in ("moving_mean", "moving_variance"):
        own, other = (getattr(one, name) for one in (layer, theirs))
        assert own.dtype == policy
        np.testing.assert_allclose(array(own), array(other), rtol=TOLERANCES[policy])


SUMS = {  # of 112 x 112 positions, each far beyond float16's 65504
    "mean_pool": lambda x: own_ops.mean_pool(x, "channels_last"),
    "average_pool": lambda x: own_ops.average_pool(x, (112, 112), "channels_last"),
    "partial_average_pool": lambda x: own_ops.average_pool(x, (128, 128), "channels_last", partial=True),
    "group_norm": lambda x: own_ops.group_norm(x, ops.ones(8), ops.zeros(8), 8, 1e-3, "channels_last"),
    "channel_attention": lambda x: own_ops.channel_attention(x, x, x, heads=2, data_format="channels_last"),
}


@pytest.mark.parametrize("policy", HALF)
@pytest.mark.parametrize("name", SUMS)
def test_sums_over_large_maps_are_taken_in_float32(name, policy):
    x = ops.cast(100 + 30 * numbers(1, 112, 112, 8), policy)
    expected = array(SUMS[name](ops.cast(x, "float32")))
    assert deviation(SUMS[name](x), expected) < TOLERANCES[policy]


def test_spatial_attention_scales_before_it_multiplies():
    x = ops.cast(np.full((1, 3, 3, 64), 40.0), "float16")  # 64 * 40 * 40 is more than float16 holds
    y = own_ops.spatial_attention(x, x, x, heads=1, multi_query=True, data_format="channels_last")
    np.testing.assert_allclose(array(y), 40.0, rtol=1e-2)


@pytest.mark.parametrize("policy", HALF)
@pytest.mark.parametrize("filters", [None, 8])
@pytest.mark.parametrize("strides", [1, 2])
def test_rounding_is_not_worse_than_keras(filters, strides, policy):
    """Errors against float64, of the convolutions here and of Keras's in the same type."""
    kernel, x = numbers(5, 5, 8, filters or 1, seed=1), ops.cast(numbers(2, 14, 14, 8), policy)
    options = {"strides": strides, "padding": "same", "use_bias": False, "dtype": policy}
    theirs = keras.layers.Conv2D(filters, 5, **options) if filters else keras.layers.DepthwiseConv2D(5, **options)
    layer = ConvNormActivation(filters, 5, strides, normalization=None, dtype=policy)
    for one in (layer, theirs):
        one.build((2, 14, 14, 8))
        one.kernel.assign(kernel)
    rounded = array(layer.kernel).astype("float64")
    padded = np.pad(array(x).astype("float64"), ((0, 0), *[((2, 2) if strides == 1 else (1, 2))] * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (1, 2))[:, ::strides, ::strides]
    exact = np.einsum("nhwcij,ijcf->nhwf" if filters else "nhwcij,ijcf->nhwc", windows, rounded)
    ours, keras_error = (np.sqrt(np.mean((array(one(x)) - exact) ** 2)) for one in (layer, theirs))
    assert ours < 1.5 * keras_error


def model_of(policy, data_format="channels_last", **options):
    """A model with most kinds of blocks, which takes pixels."""
    shape = (32, 32, 3) if data_format == "channels_last" else (3, 32, 32)
    options = {"include_preprocessing": True, "dtype": policy, "data_format": data_format} | options
    return create_mobilenetv4(TINY, **{"num_classes": 3, "input_shape": shape} | options)


def pixels(data_format="channels_last", count=4):
    x = np.random.default_rng(0).uniform(0, 255, (count, 32, 32, 3)).astype("float32")
    return x if data_format == "channels_last" else channels_first(x)


@pytest.mark.parametrize("data_format", quick(("channels_last", "channels_first"), ("channels_last",)))
@pytest.mark.parametrize("policy", quick(TOLERANCES, () if BACKEND == "jax" else ("float16",)))
def test_a_model_predicts_learns_and_saves(policy, data_format, tmp_path):
    x, labels = pixels(data_format), np.array([0, 1, 2, 0])
    single, model = model_of("float32", data_format), model_of(policy, data_format)
    model.set_weights(randomize(single).get_weights())
    expected = array(single(x, training=False))
    assert deviation(model.predict(x, verbose=0), expected) < TOLERANCES[policy]

    before = [array(weight) for weight in model.trainable_weights]
    jit = BACKEND == "jax"  # TensorFlow would take long to compile by XLA
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=jit)
    history = model.fit(x, labels, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    after = [array(weight) for weight in model.trainable_weights]
    assert all(np.isfinite(weight).all() for weight in after)
    assert sum(not np.array_equal(old, new) for old, new in zip(before, after, strict=True)) > len(after) / 2
    assert np.isfinite(model.evaluate(x, labels, verbose=0))

    learned = array(model(x, training=False))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(array(loaded(x, training=False)), learned, rtol=1e-6)
    assert [weight.dtype for weight in loaded.weights] == [weight.dtype for weight in model.weights]
    fused = mobilenet_zoo.fuse(loaded, allow_training=True)
    assert deviation(fused(x, training=False), learned) < TOLERANCES[policy]


@pytest.mark.parametrize("policy", quick(TOLERANCES, () if BACKEND == "jax" else ("bfloat16",)))
def test_a_pyramid_of_resized_images(policy):
    options = {"include_top": False, "pyramid_levels": (1, 2, 3), "include_preprocessing": 48}
    single, model = (model_of(each, **options) for each in ("float32", policy))
    model.set_weights(randomize(single).get_weights())
    expected, found = (one(pixels(), training=False) for one in (single, model))
    for level, features in expected.items():
        assert deviation(found[level], array(features)) < 2 * TOLERANCES[policy]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="jit_compile is TensorFlow's; JAX compiles in every other test")
@pytest.mark.slow
@pytest.mark.parametrize("policy", TOLERANCES)
def test_compiled_by_xla(policy):
    import tensorflow as tf

    model = randomize(model_of(policy))
    x = tf.cast(pixels(), model.inputs[0].dtype)
    expected = array(model(x, training=False))
    compiled = tf.function(lambda x: model(x, training=False), jit_compile=True)
    assert deviation(compiled(x), expected) < TOLERANCES[policy]
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
    history = model.fit(x, np.array([0, 1, 2, 0]), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("policy", TOLERANCES)
@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv1_025",
        "mobilenetv2_035",
        "mobilenetv3_small_050",
        "mobilenetv4_conv_small_050",
        "mobilenetv4_conv_aa_medium",
        "mobilenetv4_conv_blur_medium",
        "mobilenetv4_hybrid_medium",
        "mobilenetv4_compact_nano",
        "mobilenetv4_compact_hybrid_large",
    ],
)
def test_every_generation(name, policy):
    model = mobilenet_zoo.create_model(name, num_classes=3, input_shape=(64, 64, 3), dtype=policy)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=BACKEND == "jax")
    assert np.isfinite(model.fit(x, np.array([0, 1]), verbose=0).history["loss"]).all()
    assert np.isfinite(array(model.predict(x, verbose=0))).all()


@pytest.mark.across
@pytest.mark.parametrize("policy", ["int8_from_float32", "float8_from_float32", "int4_from_mixed_bfloat16"])
def test_policies_that_quantize_are_refused(policy):
    with pytest.raises(ValueError, match=rf"dtype='{policy}' .*quantizes.*quantization='int8'"):
        model_of(policy)
    try:
        keras.config.set_dtype_policy(policy)
    except ValueError:  # Keras refuses it itself from 3.16 on
        return
    try:
        with pytest.raises(ValueError, match=rf"dtype=None .*'{policy}', which quantizes"):
            model_of(None)
    finally:
        keras.config.set_dtype_policy("float32")
