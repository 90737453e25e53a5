"""Options that apply to all layers of a created model: normalization, activation, dropout, data format, dtype."""

import keras
import numpy as np
import pytest

from mobilenet_common.architecture import (
    Architecture,
    Conv,
    Inverted,
    Separable,
)
from mobilenet_common.layers import ConvNormActivation, NormActivation, SqueezeExcite
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v4 import create_mobilenetv4
from tests.created import (
    SIZE,
    TINY,
    array,
    assert_close,
    create,
    each_generation,
    images,
    layers_of,
    predict,
    randomize,
    tiny,
)

# XLA compiles slowly under TensorFlow. Without it, JAX would run a training step operation by operation.
COMPILED = {"jit_compile": keras.backend.backend() == "jax"}


# --- normalization, activation and dropout ----------------------------------------------------------------------------


@pytest.mark.across
@each_generation
def test_padding_epsilon_and_momentum_reach_every_layer(generation):
    model = create(generation, padding="symmetric", norm_epsilon=0.02, norm_momentum=0.7)
    layers = [layer for layer in layers_of(model) if isinstance(layer, NormActivation) and layer.normalization]
    assert len(layers) > 20
    for layer in layers:
        assert layer.norm_epsilon == 0.02
        assert layer.norm_momentum == 0.7
        assert getattr(layer, "padding", "symmetric") == "symmetric"
    model = create(generation, padding="same")
    layers = [layer for layer in layers_of(model) if getattr(layer, "normalization", None)]
    assert {layer.padding for layer in layers if isinstance(layer, ConvNormActivation)} == {"same"}


@pytest.mark.across
@each_generation
@pytest.mark.parametrize("normalization", ["batch", "group", "layer"])
def test_normalization_reaches_every_layer(generation, normalization):
    model, published = create(generation, normalization=normalization), create(generation)

    def normalized(model):
        return [layer for layer in layers_of(model) if getattr(layer, "normalization", None)]

    assert len(normalized(model)) == len(normalized(published))
    assert {layer.normalization for layer in normalized(model)} == {normalization}


@pytest.mark.across
@each_generation
def test_activation_reaches_every_layer_except_gates(generation):
    model, published = create(generation, activation="tanh"), create(generation)
    for ours, theirs in zip(layers_of(model), layers_of(published), strict=True):
        if isinstance(ours, SqueezeExcite):
            assert ours.activation is keras.activations.tanh
            assert ours.gate is theirs.gate
        elif isinstance(ours, NormActivation):
            kept = theirs.activation in (keras.activations.linear, keras.activations.hard_sigmoid)
            kept = kept or theirs.activation is keras.activations.sigmoid
            assert ours.activation is (theirs.activation if kept else keras.activations.tanh)
    assert model.get_layer("predictions").activation is keras.activations.softmax


@pytest.mark.across
def test_activation_may_be_a_function():
    assert tiny(activation=keras.activations.mish).get_layer("stem").activation is keras.activations.mish


@pytest.mark.across
@pytest.mark.parametrize("rate", [0.0, 0.6])
def test_dropout_rate_sets_the_dropout_layer(rate):
    model = tiny(dropout_rate=rate)
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == ([0.6] if rate else [])


@pytest.mark.across
@each_generation
def test_drop_path_rate_grows_linearly_over_the_blocks(generation):
    model = create(generation, drop_path_rate=0.3)
    blocks = [layer for layer in model.layers if layer.name.startswith("stage")]
    for i, block in enumerate(blocks):
        if hasattr(block, "drop_path_rate"):
            np.testing.assert_allclose(block.drop_path_rate, 0.3 * i / (len(blocks) - 1), atol=1e-9)
            assert (block.drop_path is None) == (i == 0)
    assert not any(getattr(layer, "drop_path_rate", 0) for layer in layers_of(create(generation)))


def test_stochastic_depth_acts_in_training_only():
    body = Architecture(stem=None, stages=((Separable(8), Inverted(3, 16, 8)),), head=None, normalization=None)
    options = {"input_shape": (6, 6, 8), "include_top": False}
    with_drop_path, plain = (create_mobilenetv2(body, drop_path_rate=rate, **options) for rate in (0.5, 0.0))
    for target, source in zip(plain.trainable_variables, with_drop_path.trainable_variables, strict=True):
        target.assign(source)
    x = images(32, 6, 6, 8)
    expected = array(plain(x, training=True))
    assert_close(with_drop_path(x, training=False), expected)
    deviations = np.abs(array(with_drop_path(x, training=True)) - expected).max((1, 2, 3))
    assert (deviations > 1e-3).all()  # the rate 0.5 doubles a kept path and zeroes a dropped one


def test_norm_momentum_is_the_weight_of_the_old_statistics():
    body = Architecture(stem=None, stages=((Conv(8),),), head=None)
    x = 3 * images(2, 6, 6, 8) + 1
    options = {"input_shape": (6, 6, 8), "include_top": False}
    low, high = (create_mobilenetv1(body, norm_momentum=momentum, **options) for momentum in (0.5, 0.9))
    high.set_weights(low.get_weights())
    steps = []
    for model in (low, high):
        model(x, training=True)
        steps.append(array(model.get_layer("stage1_block1").moving_mean))
    np.testing.assert_allclose(steps[0], 5 * steps[1], rtol=1e-3)


# --- data formats and precision ---------------------------------------------------------------------------------------


def test_channels_first_equals_channels_last():
    last = randomize(tiny(input_shape=(33, 40, 3)))
    first = tiny(input_shape=(3, 33, 40), data_format="channels_first")
    assert first.input_shape == (None, 3, 33, 40)
    assert [w.shape for w in first.weights] == [w.shape for w in last.weights]
    first.set_weights(last.get_weights())
    x = images(2, 33, 40, 3)
    assert_close(predict(first, x.transpose(0, 3, 1, 2)), predict(last, x), 1e-4)


@pytest.mark.parametrize("options", [{"pooling": "max"}, {"pyramid_levels": (1, 3)}, {"output_stride": 8}])
def test_channels_first_feature_extractor_equals_channels_last(options):
    last = randomize(tiny(include_top=False, **options))
    first = tiny(include_top=False, input_shape=(3, SIZE, SIZE), data_format="channels_first", **options)
    first.set_weights(last.get_weights())
    x = images()
    ours, theirs = (keras.tree.flatten(predict(m, i)) for m, i in ((first, x.transpose(0, 3, 1, 2)), (last, x)))
    assert len(ours) == len(theirs)
    for y, expected in zip(ours, theirs, strict=True):
        assert_close(y, expected.transpose(0, 3, 1, 2) if expected.ndim == 4 else expected, 1e-4)


@pytest.mark.across
def test_data_format_defaults_to_that_of_keras():
    keras.config.set_image_data_format("channels_first")
    try:
        model = create_mobilenetv4(TINY, 4)
        assert model.input_shape == (None, 3, 224, 224)
        assert {layer.data_format for layer in layers_of(model) if hasattr(layer, "data_format")} == {"channels_first"}
    finally:
        keras.config.set_image_data_format("channels_last")


# Under JAX, compiling takes many times longer than the rest of the test.
SLOW_UNDER_JAX = [pytest.mark.slow] if keras.backend.backend() == "jax" else []


@pytest.mark.parametrize(
    "policy", [pytest.param(name, marks=SLOW_UNDER_JAX) for name in ("mixed_bfloat16", "mixed_float16")]
)
def test_mixed_precision_computes_in_16_bits_and_trains_in_float32(policy):
    model = tiny(dtype=policy, dropout_rate=0)
    compute_dtype = policy.removeprefix("mixed_")
    assert model.get_layer("stem").compute_dtype == compute_dtype
    assert model.get_layer("classifier").compute_dtype == compute_dtype
    assert {v.dtype for v in model.weights if v.name != "seed_generator_state"} == {"float32"}
    x = images()
    y = model.predict(x, verbose=0)
    assert y.dtype == "float32"
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)

    float32_model = tiny(dropout_rate=0)
    float32_model.set_weights(model.get_weights())
    assert_close(y, predict(float32_model, x), 0.03)

    before = [array(v) for v in model.trainable_variables]
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", **COMPILED)
    loss = model.train_on_batch(x, np.array([0, 1]))
    assert np.isfinite(loss)
    after = [array(v) for v in model.trainable_variables]
    assert all(np.isfinite(value).all() for value in after)
    assert np.mean([(old != new).any() for old, new in zip(before, after, strict=True)]) > 0.9


@pytest.mark.across
def test_dtype_defaults_to_the_policy_of_keras():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("stage2_block1").expand.compute_dtype == "bfloat16"
    assert model.inputs[0].dtype == "float32"
    assert model.outputs[0].dtype == "float32"
    assert tiny(dtype="mixed_bfloat16", include_top=False).outputs[0].dtype == "bfloat16"
