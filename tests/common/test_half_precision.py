"""Layers and models under every floating-point dtype policy of Keras."""

import keras
import numpy as np
import pytest
from keras import ops

import mobilenet_zoo
from mobilenet_common import ops as common_ops
from mobilenet_common.architecture import Architecture, Attention, Conv, Head, Inverted, Universal
from mobilenet_common.layers import ConvNormActivation
from mobilenet_v4 import create_mobilenetv4
from tests.common.gradients import gradients
from tests.common.layers import LAYERS, SHAPE, random_array, randomize, small_random_array, to_channels_first

BACKEND = keras.backend.backend()
# Largest allowed deviation from float32, relative to the largest output.
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


def to_numpy(tensor):
    """Convert a floating-point tensor of any dtype to a float32 NumPy array."""
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def relative_error(actual, expected):
    """Return the largest difference, relative to the largest expected value. It is NaN if an output is NaN."""
    return np.abs(to_numpy(actual) - expected).max() / np.abs(expected).max()


def mark_slow_except(fast, names):
    """Return parameters, all marked slow except `fast`. With JAX few are fast, since it compiles every case."""
    return [pytest.param(name, marks=[] if name in fast else [pytest.mark.slow]) for name in names]


@pytest.mark.parametrize("data_format", mark_slow_except(("channels_last",), ("channels_last", "channels_first")))
@pytest.mark.parametrize("policy", mark_slow_except(HALF, TOLERANCES))
@pytest.mark.parametrize(
    "kind", mark_slow_except(("conv", "separable", "attention_down") if BACKEND == "jax" else LAYERS, LAYERS)
)
def test_layer_matches_float32(kind, policy, data_format):
    x = small_random_array(kind)
    x, shape = (x, SHAPE) if data_format == "channels_last" else (to_channels_first(x), (2, 8, 7, 5))
    reference, layer = (LAYERS[kind](data_format=data_format, dtype=dtype) for dtype in ("float32", policy))
    for instance in (reference, layer):
        instance.build(shape)
        randomize(instance)
    for training in (False, True):
        expected = to_numpy(reference(ops.convert_to_tensor(x), training=training))
        y = layer(ops.convert_to_tensor(x), training=training)
        assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
        assert relative_error(y, expected) < 2 * TOLERANCES[policy]


@pytest.mark.parametrize("policy", HALF)
def test_half_precision_gradients_match_float32(policy):
    reference, layer = (ConvNormActivation(8, 3, 2, activation="relu6", dtype=dtype) for dtype in ("float32", policy))
    for instance in (reference, layer):
        instance.build(SHAPE)
    layer.kernel.assign(reference.kernel)
    x = random_array(*SHAPE)
    (expected,) = gradients(lambda x: reference(x, training=True), x)
    (half_gradients,) = gradients(lambda x: layer(ops.cast(x, policy), training=True), x)
    assert np.linalg.norm(half_gradients - expected) < 5 * TOLERANCES[policy] * np.linalg.norm(expected)


@pytest.mark.parametrize("policy", HALF)
def test_batch_norm_matches_keras(policy):
    """Statistics are computed in float32 for every variable dtype, and moving statistics are rounded once."""
    layer = ConvNormActivation(8, 1, dtype=policy, norm_momentum=0.9)
    keras_layer = keras.layers.BatchNormalization(momentum=0.9, dtype=policy)
    x = ops.cast(300 + 100 * random_array(4, 7, 5, 8), policy)  # squares overflow in float16
    for instance in (layer, keras_layer):
        instance.build(SHAPE)
    layer.kernel.assign(np.eye(8)[None, None])
    for training in (True, False):
        expected = to_numpy(keras_layer(x, training=training))
        assert relative_error(layer(x, training=training), expected) < TOLERANCES[policy]
    for name in ("moving_mean", "moving_variance"):
        statistic, keras_statistic = (getattr(instance, name) for instance in (layer, keras_layer))
        assert statistic.dtype == policy
        np.testing.assert_allclose(to_numpy(statistic), to_numpy(keras_statistic), rtol=TOLERANCES[policy])


# Each operation sums over 112×112 positions. The sums exceed float16's maximum of 65504.
REDUCTIONS = {
    "mean_pool": lambda x: common_ops.mean_pool(x, "channels_last"),
    "average_pool": lambda x: common_ops.average_pool(x, (112, 112), "channels_last"),
    "partial_average_pool": lambda x: common_ops.average_pool(x, (128, 128), "channels_last", partial=True),
    "group_norm": lambda x: common_ops.group_norm(x, ops.ones(8), ops.zeros(8), 8, 1e-3, "channels_last"),
    "channel_attention": lambda x: common_ops.channel_attention(x, x, x, heads=2, data_format="channels_last"),
}


@pytest.mark.parametrize("policy", HALF)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_over_large_maps_use_float32(name, policy):
    x = ops.cast(100 + 30 * random_array(1, 112, 112, 8), policy)
    expected = to_numpy(REDUCTIONS[name](ops.cast(x, "float32")))
    assert relative_error(REDUCTIONS[name](x), expected) < TOLERANCES[policy]


def test_spatial_attention_scales_before_multiplying():
    x = ops.cast(np.full((1, 3, 3, 64), 40.0), "float16")  # 64 * 40 * 40 exceeds the maximum of float16
    y = common_ops.spatial_attention(x, x, x, heads=1, multi_query=True, data_format="channels_last")
    np.testing.assert_allclose(to_numpy(y), 40.0, rtol=1e-2)


@pytest.mark.parametrize("policy", HALF)
@pytest.mark.parametrize("filters", [None, 8])
@pytest.mark.parametrize("strides", [1, 2])
def test_rounding_error_is_not_larger_than_keras(filters, strides, policy):
    """Compare the errors, relative to float64, of this library's and Keras's convolutions in the same dtype."""
    kernel, x = random_array(5, 5, 8, filters or 1, seed=1), ops.cast(random_array(2, 14, 14, 8), policy)
    options = {"strides": strides, "padding": "same", "use_bias": False, "dtype": policy}
    keras_layer = keras.layers.Conv2D(filters, 5, **options) if filters else keras.layers.DepthwiseConv2D(5, **options)
    layer = ConvNormActivation(filters, 5, strides, normalization=None, dtype=policy)
    for instance in (layer, keras_layer):
        instance.build((2, 14, 14, 8))
        instance.kernel.assign(kernel)
    rounded = to_numpy(layer.kernel).astype("float64")
    padded = np.pad(to_numpy(x).astype("float64"), ((0, 0), *[((2, 2) if strides == 1 else (1, 2))] * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (1, 2))[:, ::strides, ::strides]
    exact = np.einsum("nhwcij,ijcf->nhwf" if filters else "nhwcij,ijcf->nhwc", windows, rounded)
    error, keras_error = (np.sqrt(np.mean((to_numpy(instance(x)) - exact) ** 2)) for instance in (layer, keras_layer))
    assert error < 1.5 * keras_error


def build_model(policy, data_format="channels_last", **options):
    """Build a model that has most kinds of blocks and takes pixels in 0 to 255."""
    shape = (32, 32, 3) if data_format == "channels_last" else (3, 32, 32)
    options = {"include_preprocessing": True, "dtype": policy, "data_format": data_format} | options
    return create_mobilenetv4(TINY, **{"num_classes": 3, "input_shape": shape} | options)


def random_images(data_format="channels_last", count=4):
    x = np.random.default_rng(0).uniform(0, 255, (count, 32, 32, 3)).astype("float32")
    return x if data_format == "channels_last" else to_channels_first(x)


@pytest.mark.parametrize("data_format", mark_slow_except(("channels_last",), ("channels_last", "channels_first")))
@pytest.mark.parametrize("policy", mark_slow_except(() if BACKEND == "jax" else ("float16",), TOLERANCES))
def test_model_predicts_trains_and_saves(policy, data_format, tmp_path):
    x, labels = random_images(data_format), np.array([0, 1, 2, 0])
    reference, model = build_model("float32", data_format), build_model(policy, data_format)
    model.set_weights(randomize(reference).get_weights())
    expected = to_numpy(reference(x, training=False))
    assert relative_error(model.predict(x, verbose=0), expected) < TOLERANCES[policy]

    before = [to_numpy(weight) for weight in model.trainable_weights]
    jit = BACKEND == "jax"  # XLA compilation takes long with TensorFlow
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=jit)
    history = model.fit(x, labels, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    after = [to_numpy(weight) for weight in model.trainable_weights]
    assert all(np.isfinite(weight).all() for weight in after)
    assert sum(not np.array_equal(old, new) for old, new in zip(before, after, strict=True)) > len(after) / 2
    assert np.isfinite(model.evaluate(x, labels, verbose=0))

    trained_outputs = to_numpy(model(x, training=False))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(loaded(x, training=False)), trained_outputs, rtol=1e-6)
    assert [weight.dtype for weight in loaded.weights] == [weight.dtype for weight in model.weights]
    fused = mobilenet_zoo.fuse(loaded, allow_training=True)
    assert relative_error(fused(x, training=False), trained_outputs) < TOLERANCES[policy]


@pytest.mark.parametrize("policy", mark_slow_except(() if BACKEND == "jax" else ("bfloat16",), TOLERANCES))
def test_pyramid_of_resized_images_matches_float32(policy):
    options = {"include_top": False, "pyramid_levels": (1, 2, 3), "include_preprocessing": 48}
    reference, model = (build_model(dtype, **options) for dtype in ("float32", policy))
    model.set_weights(randomize(reference).get_weights())
    expected, outputs = (instance(random_images(), training=False) for instance in (reference, model))
    for level, features in expected.items():
        assert relative_error(outputs[level], to_numpy(features)) < 2 * TOLERANCES[policy]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow needs jit_compile to use XLA")
@pytest.mark.slow
@pytest.mark.parametrize("policy", TOLERANCES)
def test_xla_compiled_model_predicts_and_trains(policy):
    import tensorflow as tf

    model = randomize(build_model(policy))
    x = tf.cast(random_images(), model.inputs[0].dtype)
    expected = to_numpy(model(x, training=False))
    compiled = tf.function(lambda x: model(x, training=False), jit_compile=True)
    assert relative_error(compiled(x), expected) < TOLERANCES[policy]
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
def test_every_generation_trains_and_predicts(name, policy):
    model = mobilenet_zoo.create_model(name, num_classes=3, input_shape=(64, 64, 3), dtype=policy)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=BACKEND == "jax")
    assert np.isfinite(model.fit(x, np.array([0, 1]), verbose=0).history["loss"]).all()
    assert np.isfinite(to_numpy(model.predict(x, verbose=0))).all()


@pytest.mark.across
@pytest.mark.parametrize("policy", ["int8_from_float32", "float8_from_float32", "int4_from_mixed_bfloat16"])
def test_quantizing_policies_are_rejected(policy):
    with pytest.raises(ValueError, match=rf"dtype='{policy}' .*quantizes.*quantization='int8'"):
        build_model(policy)
    try:
        keras.config.set_dtype_policy(policy)
    except ValueError:  # Keras itself rejects these policies since 3.16
        return
    try:
        with pytest.raises(ValueError, match=rf"dtype=None .*'{policy}' quantizes"):
            build_model(None)
    finally:
        keras.config.set_dtype_policy("float32")
