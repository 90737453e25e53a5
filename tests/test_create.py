"""What the four create functions promise: every argument, and an ordinary Keras model at the end."""

import keras
import numpy as np
import pytest
from keras import ops

from mobilenet_common.architecture import (
    Architecture,
    Attention,
    ChannelAttend,
    Conv,
    Dense,
    Excite,
    Fused,
    Head,
    Inverted,
    Separable,
    Universal,
)
from mobilenet_common.layers import ConvNormActivation, NormActivation, SqueezeExcite
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import compact_architecture, create_mobilenetv4

# One variant of each generation, and V4's three kinds: the narrowest that still have every part.
GENERATIONS = {
    "v1": (create_mobilenetv1, "1.0"),
    "v2": (create_mobilenetv2, "1.0"),
    "v3": (create_mobilenetv3, "small"),
    "v4": (create_mobilenetv4, "conv_small"),
    "v4_hybrid": (create_mobilenetv4, "hybrid_medium"),
    "v4_compact": (create_mobilenetv4, "compact_nano"),
}
SIZE = 32
WIDTH = 0.1

each_generation = pytest.mark.parametrize("generation", GENERATIONS)

# Every kind of row once or twice, for what does not depend on the variant and has to be computed.
TINY = Architecture(
    name="tiny",
    stem=Conv(8, stride=2),
    stages=(
        (Separable(8), Excite(4), ChannelAttend(2)),
        (Inverted(3, 16, 8, 0.25, stride=2), Inverted(3, 16, 8, 0.25), Fused(3, 16, 8)),
        (Universal(3, 3, 16, 16, 2), Attention(16, 2, 4, kv_kernel=3, kv_stride=2), Universal(0, 3, 32, 16)),
    ),
    head=Head(Conv(24, 1), Dense(32)),
)

# TensorFlow would take long to compile by XLA, and JAX would run a step operation by operation without.
COMPILED = {"jit_compile": keras.backend.backend() == "jax"}


def create(generation, num_classes=4, input_shape=(SIZE, SIZE, 3), **options):
    """A narrow model of one generation."""
    function, variant = GENERATIONS[generation]
    return function(variant, num_classes, input_shape, **{"width_multiplier": WIDTH, **options})


def tiny(num_classes=4, input_shape=(SIZE, SIZE, 3), **options):
    """A model of the architecture `TINY`."""
    return create_mobilenetv4(TINY, num_classes, input_shape, **options)


def images(*shape, seed=0):
    """Standard normal pictures."""
    return np.random.default_rng(seed).standard_normal(shape or (2, SIZE, SIZE, 3)).astype("float32")


def array(tensor):
    """A tensor of any backend as a NumPy array."""
    return ops.convert_to_numpy(tensor)


def predict(model, x):
    """What the model answers, as one compiled step."""
    return model.predict(x, verbose=0)


def layers_of(model):
    """All layers of a model and of its blocks."""
    return [layer for layer in model._flatten_layers() if layer is not model]


def randomize(model, seed=1):
    """Give a model random weights under which no layer's output vanishes."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, shape).astype("float32"))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign((0.1 * generator.standard_normal(shape)).astype("float32"))
    return model


def close(actual, expected, tolerance=1e-5):
    """Assert equality, measured by the largest expected value."""
    actual, expected = array(actual), array(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


# --- variants and defaults ------------------------------------------------------------------------------------------


@pytest.mark.across
@pytest.mark.parametrize(
    "function, default, parameters",
    [
        (create_mobilenetv1, "1.0", 4_231_976),
        (create_mobilenetv2, "1.0", 3_504_872),
        (create_mobilenetv3, "large", 5_483_032),
        (create_mobilenetv4, "conv_medium", 9_715_512),
    ],
)
def test_without_arguments(function, default, parameters):
    model = function()
    assert model.input_shape == (None, 224, 224, 3)
    assert model.output_shape == (None, 1000)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameters
    assert model.name == function(default).name
    assert model.get_layer("predictions").activation is keras.activations.softmax


@pytest.mark.across
@pytest.mark.parametrize(
    "generation, dropout, momentum, epsilon, padding",
    [
        ("v1", 0.001, 0.99, 1e-3, "same"),
        ("v2", 0.2, 0.99, 1e-3, "same"),
        ("v3", 0.2, 0.99, 1e-3, "same"),
        ("v4", 0.2, 0.99, 1e-3, "same"),
        ("v4_hybrid", 0.2, 0.99, 1e-3, "same"),
        ("v4_compact", 0.2, 0.99, 1e-5, "symmetric"),
    ],
)
def test_defaults(generation, dropout, momentum, epsilon, padding):
    model = create(generation)
    assert model.get_layer("dropout").rate == dropout
    normalized = [layer for layer in layers_of(model) if getattr(layer, "normalization", None)]
    assert {layer.norm_momentum for layer in normalized} == {momentum}
    assert {layer.norm_epsilon for layer in normalized} == {epsilon}
    assert {layer.padding for layer in normalized if hasattr(layer, "padding")} == {padding}


@pytest.mark.across
def test_the_largest_compact_model_drops_more():
    assert create_mobilenetv4("compact_hybrid_large", width_multiplier=WIDTH).get_layer("dropout").rate == 0.3


@pytest.mark.across
@pytest.mark.parametrize("variant", [0.5, "0.5", "0.50", "0.500"])
def test_a_width_is_a_number_or_its_text(variant):
    model = create_mobilenetv1(variant, 3, (SIZE, SIZE, 3))
    assert model.name == "mobilenetv1_050"
    assert model.get_layer("stem").filters == 16


@pytest.mark.across
@pytest.mark.parametrize("variant", [1, 1.0, "1", "1.0"])
def test_the_whole_width_is_a_number_too(variant):
    assert create_mobilenetv2(variant, 3, (SIZE, SIZE, 3)).name == "mobilenetv2_100"


@pytest.mark.across
def test_width_multiplier_multiplies_the_variants_own_width():
    model = create_mobilenetv1("0.5", 3, (SIZE, SIZE, 3), 0.5)
    assert model.name == "mobilenetv1_025"
    assert [w.shape for w in model.weights] == [w.shape for w in create_mobilenetv1(0.25, 3, (SIZE, SIZE, 3)).weights]


@pytest.mark.across
@each_generation
def test_num_classes(generation):
    for classes in (1, 7):
        assert create(generation, classes, classifier_activation=None).output_shape == (None, classes)


@pytest.mark.parametrize("channels", [1, 5])
def test_any_number_of_input_channels(channels):
    model = tiny(input_shape=(SIZE, SIZE, channels))
    assert model.get_layer("stem").kernel.shape[2] == channels
    assert predict(model, images(2, SIZE, SIZE, channels)).shape == (2, 4)


# --- names and the summary ------------------------------------------------------------------------------------------


@pytest.mark.across
def test_layer_names():
    names = [layer.name for layer in tiny(include_preprocessing=True).layers]
    assert names == [
        "image",
        "preprocessing",
        "stem",
        "stage1_block1",
        "stage1_block2",
        "stage1_block3",
        "stage2_block1",
        "stage2_block2",
        "stage2_block3",
        "stage3_block1",
        "stage3_block2",
        "stage3_block3",
        "head_conv",
        "pool",
        "head_dense",
        "flatten",
        "dropout",
        "classifier",
        "predictions",
    ]


@pytest.mark.across
@each_generation
def test_summary_has_a_row_a_block_and_names_are_stable(generation):
    first, second = create(generation), create(generation)
    lines = []
    first.summary(print_fn=lines.append, line_length=120)
    text = "\n".join(map(str, lines))
    blocks = [layer.name for layer in first.layers if layer.name.startswith("stage")]
    rows = [line for line in text.splitlines() if "stage" in line and "_block" in line]
    assert len(rows) == len(blocks) > 5
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert [v.path for v in first.weights] == [v.path for v in second.weights]
    assert len({v.path for v in first.weights}) == len(first.weights)


@pytest.mark.across
@pytest.mark.parametrize(
    "generation, width, name",
    [
        ("v1", 0.1, "mobilenetv1_010"),
        ("v2", 1.4, "mobilenetv2_140"),
        ("v3", 0.75, "mobilenetv3_small_075"),
        ("v4", 0.5, "mobilenetv4_conv_small_050"),
        ("v4", 1.0, "mobilenetv4_conv_small"),
        ("v4_compact", 1.0, "mobilenetv4_compact_nano"),
    ],
)
def test_a_models_name_says_variant_and_width(generation, width, name):
    assert create(generation, width_multiplier=width).name == name
    assert create(generation, width_multiplier=width, name="mine").name == "mine"


# --- input ----------------------------------------------------------------------------------------------------------


def test_include_preprocessing_scales_pixels_to_minus_1_to_1():
    raw, scaled = tiny(include_preprocessing=True), randomize(tiny())
    raw.set_weights(scaled.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype("float32")
    pixels[0, 0, 0] = (0, 127.5, 255)
    close(predict(raw, pixels), predict(scaled, pixels / 127.5 - 1), 1e-4)


def test_input_tensor_continues_another_model():
    image = keras.Input((SIZE, SIZE, 1))
    tripled = keras.layers.Concatenate()([image, image, image])
    model = create_mobilenetv4(TINY, 4, input_tensor=tripled)
    assert model.input_shape == (None, SIZE, SIZE, 1)
    plain = randomize(tiny())
    model.set_weights(plain.get_weights())
    x = images(2, SIZE, SIZE, 1)
    close(predict(model, x), predict(plain, np.repeat(x, 3, axis=-1)))


@pytest.mark.across
def test_input_tensor_may_come_with_its_shape():
    image = keras.Input((48, None, 2))
    model = create_mobilenetv4(TINY, 4, (48, None, 2), input_tensor=image)
    assert model.inputs[0] is image


def test_free_height_and_width():
    fixed, free = tiny(input_shape=(40, 33, 3)), tiny(input_shape=(None, None, 3))
    free.set_weights(randomize(fixed).get_weights())
    assert free.input_shape == (None, None, None, 3)
    x = images(2, 40, 33, 3)
    close(predict(free, x), predict(fixed, x))


# --- output ---------------------------------------------------------------------------------------------------------


def test_classifier_activation():
    logits, softmax, tanh = (tiny(classifier_activation=activation) for activation in (None, "softmax", "tanh"))
    for model in (softmax, tanh):
        model.set_weights(logits.get_weights())
    x = 3 * images()
    expected = predict(logits, x)
    assert (expected.sum(-1) != 1).all()
    e = np.exp(expected)
    close(predict(softmax, x), e / e.sum(-1, keepdims=True))
    close(predict(tanh, x), np.tanh(expected))


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling_of_the_feature_map(pooling):
    features = randomize(tiny(include_top=False))
    pooled = tiny(include_top=False, pooling=pooling)
    pooled.set_weights(features.get_weights())
    x = images()
    y = predict(features, x)
    assert y.ndim == 4
    close(predict(pooled, x), y.mean((1, 2)) if pooling == "avg" else y.max((1, 2)))


@pytest.mark.across
@each_generation
def test_a_feature_extractor_is_the_body_of_the_classifier(generation):
    classifier, extractor = create(generation), create(generation, include_top=False)
    body = [layer.name for layer in extractor.layers]
    assert [layer.name for layer in classifier.layers][: len(body)] == body
    assert extractor.output.shape == classifier.get_layer(body[-1]).output.shape
    assert not {"pool", "head_dense", "dropout", "classifier"} & set(body)


@pytest.mark.across
@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("generation", ["v1", "v2", "v3", "v4", "v4_hybrid"])
def test_pyramid_levels_are_the_last_maps_of_their_strides(generation, output_stride):
    options = {"include_top": False, "input_shape": (64, 96, 3), "output_stride": output_stride}
    model = create(generation, pyramid_levels=(1, 2, 3, 4, 5), **options)
    assert list(model.output) == ["P1", "P2", "P3", "P4", "P5"]
    for level in range(1, 6):
        stride = min(2**level, output_stride)
        assert model.output[f"P{level}"].shape[1:3] == (64 // stride, 96 // stride)
    # Each is the map from which the next stride, or the head, goes on.
    published = create(generation, include_top=False, input_shape=(64, 96, 3))
    blocks = [layer for layer in published.layers if layer.name == "stem" or layer.name.startswith("stage")]
    for level in range(1, 6):
        last = [layer.name for layer in blocks if layer.output.shape[1] == 64 // 2**level][-1]
        assert model.output[f"P{level}"] is model.get_layer(last).output


@pytest.mark.across
def test_some_pyramid_levels():
    model = create("v4", include_top=False, pyramid_levels=[4, 2])
    channels = {name: level.shape[-1] for name, level in model.output.items()}
    assert channels == {"P2": model.get_layer("stage1_block2").filters, "P4": model.get_layer("stage3_block6").filters}


def test_pyramid_values_are_those_of_the_layers():
    pyramid = randomize(tiny(include_top=False, pyramid_levels=(1, 2, 3)))
    names = {"P1": "stage1_block3", "P2": "stage2_block3", "P3": "stage3_block3"}
    probe = keras.Model(pyramid.input, [pyramid.get_layer(name).output for name in names.values()])
    x = images()
    for (level, value), expected in zip(sorted(predict(pyramid, x).items()), predict(probe, x), strict=True):
        assert level in names
        close(value, expected)


# --- output stride --------------------------------------------------------------------------------------------------


@pytest.mark.across
@pytest.mark.parametrize(
    "output_stride, expected",
    [
        (32, {"stage3_block1": (2, 1), "stage4_block1": (2, 1), "stage5_block1": (2, 1), "stage5_block2": (1, 1)}),
        (16, {"stage3_block1": (2, 1), "stage4_block1": (2, 1), "stage5_block1": (1, 1), "stage5_block2": (1, 2)}),
        (8, {"stage3_block1": (2, 1), "stage4_block1": (1, 1), "stage4_block2": (1, 2), "stage5_block1": (1, 2),
             "stage5_block2": (1, 4)}),
    ],
)  # fmt: skip
def test_output_stride_turns_later_strides_into_dilation(output_stride, expected):
    model = create("v1", output_stride=output_stride)
    placed = {name: model.get_layer(name) for name in expected}
    assert {name: (layer.strides, layer.dilation_rate) for name, layer in placed.items()} == expected
    assert model.get_layer("stage5_block2").depthwise.dilation_rate == expected["stage5_block2"][1]
    assert model.get_layer("stage5_block2").output.shape[1] == SIZE // output_stride


@pytest.mark.across
def test_output_stride_dilates_the_key_and_value_convolutions_of_attention():
    model = create("v4_hybrid", output_stride=8)
    attention = model.get_layer("stage3_block5")
    assert attention.dilation_rate == 2
    assert (attention.key_down.dilation_rate, attention.key_down.strides) == (2, 2)


def test_a_dilated_model_sees_the_same_pixels():
    """At stride 1 with dilation, every other pixel of the map is the strided model's map."""
    strided = randomize(create("v1", include_top=False, input_shape=(64, 64, 3), padding="symmetric"))
    dilated = create("v1", include_top=False, input_shape=(64, 64, 3), padding="symmetric", output_stride=16)
    dilated.set_weights(strided.get_weights())
    x = images(1, 64, 64, 3)
    close(predict(dilated, x)[:, ::2, ::2], predict(strided, x), 1e-4)


# --- what reaches every layer ---------------------------------------------------------------------------------------


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
    others = [layer for layer in layers_of(create(generation, padding="same")) if getattr(layer, "normalization", None)]
    assert {layer.padding for layer in others if isinstance(layer, ConvNormActivation)} == {"same"}


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
def test_activation_reaches_every_layer_but_the_gates(generation):
    model, published = create(generation, activation="tanh"), create(generation)
    for ours, theirs in zip(layers_of(model), layers_of(published), strict=True):
        if isinstance(ours, SqueezeExcite):
            assert ours.activation is keras.activations.tanh
            assert ours.gate is theirs.gate
        elif isinstance(ours, NormActivation):
            plain = theirs.activation in (keras.activations.linear, keras.activations.hard_sigmoid)
            plain = plain or theirs.activation is keras.activations.sigmoid
            assert ours.activation is (theirs.activation if plain else keras.activations.tanh)
    assert model.get_layer("predictions").activation is keras.activations.softmax


@pytest.mark.across
def test_activation_may_be_a_function():
    assert tiny(activation=keras.activations.mish).get_layer("stem").activation is keras.activations.mish


@pytest.mark.across
@pytest.mark.parametrize("rate", [0.0, 0.6])
def test_dropout_rate(rate):
    model = tiny(dropout_rate=rate)
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == ([0.6] if rate else [])


@pytest.mark.across
@each_generation
def test_stochastic_depth_grows_linearly_over_the_blocks(generation):
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
    dropping, plain = (create_mobilenetv2(body, drop_path_rate=rate, **options) for rate in (0.5, 0.0))
    for target, source in zip(plain.trainable_variables, dropping.trainable_variables, strict=True):
        target.assign(source)
    x = images(32, 6, 6, 8)
    expected = array(plain(x, training=True))
    close(dropping(x, training=False), expected)
    differs = np.abs(array(dropping(x, training=True)) - expected).max((1, 2, 3)) > 1e-3
    assert differs.all()  # a path that is kept counts twice, one that is dropped not at all


def test_norm_momentum_is_the_share_of_the_old_statistics():
    body = Architecture(stem=None, stages=((Conv(8),),), head=None)
    x = 3 * images(2, 6, 6, 8) + 1
    options = {"input_shape": (6, 6, 8), "include_top": False}
    half, most = (create_mobilenetv1(body, norm_momentum=momentum, **options) for momentum in (0.5, 0.9))
    most.set_weights(half.get_weights())
    steps = []
    for model in (half, most):
        model(x, training=True)
        steps.append(array(model.get_layer("stage1_block1").moving_mean))
    np.testing.assert_allclose(steps[0], 5 * steps[1], rtol=1e-3)


# --- data formats and precision -------------------------------------------------------------------------------------


def test_channels_first_equals_channels_last():
    last = randomize(tiny(input_shape=(33, 40, 3)))
    first = tiny(input_shape=(3, 33, 40), data_format="channels_first")
    assert first.input_shape == (None, 3, 33, 40)
    assert [w.shape for w in first.weights] == [w.shape for w in last.weights]
    first.set_weights(last.get_weights())
    x = images(2, 33, 40, 3)
    close(predict(first, x.transpose(0, 3, 1, 2)), predict(last, x), 1e-4)


@pytest.mark.parametrize("options", [{"pooling": "max"}, {"pyramid_levels": (1, 3)}, {"output_stride": 8}])
def test_channels_first_feature_extractors(options):
    last = randomize(tiny(include_top=False, **options))
    first = tiny(include_top=False, input_shape=(3, SIZE, SIZE), data_format="channels_first", **options)
    first.set_weights(last.get_weights())
    x = images()
    ours, theirs = (keras.tree.flatten(predict(m, i)) for m, i in ((first, x.transpose(0, 3, 1, 2)), (last, x)))
    assert len(ours) == len(theirs)
    for y, expected in zip(ours, theirs, strict=True):
        close(y, expected.transpose(0, 3, 1, 2) if expected.ndim == 4 else expected, 1e-4)


@pytest.mark.across
def test_the_data_format_of_keras_is_the_default():
    keras.config.set_image_data_format("channels_first")
    try:
        model = create_mobilenetv4(TINY, 4)
        assert model.input_shape == (None, 3, 224, 224)
        assert {layer.data_format for layer in layers_of(model) if hasattr(layer, "data_format")} == {"channels_first"}
    finally:
        keras.config.set_image_data_format("channels_last")


# JAX compiles for many times as long as the rest of the test takes.
SLOW_UNDER_JAX = [pytest.mark.slow] if keras.backend.backend() == "jax" else []


@pytest.mark.parametrize(
    "policy", [pytest.param(name, marks=SLOW_UNDER_JAX) for name in ("mixed_bfloat16", "mixed_float16")]
)
def test_mixed_precision_computes_in_half_and_trains_in_float32(policy):
    model = tiny(dtype=policy, dropout_rate=0)
    half = policy.removeprefix("mixed_")
    assert model.get_layer("stem").compute_dtype == half
    assert model.get_layer("classifier").compute_dtype == half
    assert {v.dtype for v in model.weights if v.name != "seed_generator_state"} == {"float32"}
    x = images()
    y = model.predict(x, verbose=0)
    assert y.dtype == "float32"
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)

    full = tiny(dropout_rate=0)
    full.set_weights(model.get_weights())
    close(y, predict(full, x), 0.03)

    before = [array(v) for v in model.trainable_variables]
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", **COMPILED)
    loss = model.train_on_batch(x, np.array([0, 1]))
    assert np.isfinite(loss)
    after = [array(v) for v in model.trainable_variables]
    assert all(np.isfinite(value).all() for value in after)
    assert np.mean([(old != new).any() for old, new in zip(before, after, strict=True)]) > 0.9


@pytest.mark.across
def test_the_dtype_policy_of_keras_is_the_default():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("stage2_block1").expand.compute_dtype == "bfloat16"
    assert model.inputs[0].dtype == "float32"
    assert model.outputs[0].dtype == "float32"
    assert tiny(dtype="mixed_bfloat16", include_top=False).outputs[0].dtype == "bfloat16"


# --- architectures of one's own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [8, 24, 1])
def test_a_body_without_stem_takes_a_feature_map_of_any_channel_count(channels):
    body = Architecture(stem=None, stages=TINY.stages, head=None)
    model = create_mobilenetv4(body, input_shape=(10, 7, channels), include_top=False)
    assert [layer.name for layer in model.layers][1] == "stage1_block1"
    assert predict(model, images(2, 10, 7, channels)).shape == (2, 3, 2, 16)


def test_a_body_inside_another_network():
    x = image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(12, 3)(x)
    body = create_mobilenetv4(Architecture(stem=None, stages=TINY.stages, head=None), include_top=False, input_tensor=x)
    model = keras.Model(image, keras.layers.Flatten()(body.output))
    assert predict(model, images(2, 16, 16, 3)).shape == (2, 4 * 4 * 16)


@pytest.mark.across
def test_an_architecture_without_head_has_no_top():
    headless = Architecture(stem=TINY.stem, stages=TINY.stages, head=None)
    model = create_mobilenetv4(headless, input_shape=(SIZE, SIZE, 3), include_top=False, pooling="avg")
    assert model.output_shape == (None, 16)
    with pytest.raises(ValueError, match="include_top=True needs an architecture with a head"):
        create_mobilenetv4(headless)


@pytest.mark.across
@pytest.mark.parametrize("function", [create_mobilenetv1, create_mobilenetv2, create_mobilenetv3, create_mobilenetv4])
def test_every_create_function_takes_an_architecture(function):
    model = function(TINY, 5, (SIZE, SIZE, 3), 0.5)
    assert model.name == "tiny_050"
    assert model.output_shape == (None, 5)
    assert model.get_layer("stage3_block3").filters == 8


def test_a_compact_model_of_ones_own():
    architecture = compact_architecture(16, 32, 4, 2, 1, 1, 1, 1, 24, dropout_rate=0.1, downsampling=True, name="mine")
    model = create_mobilenetv4(architecture, 6, (9, 8, 1))
    assert model.name == "mine"
    assert model.get_layer("dropout").rate == 0.1
    assert model.get_layer("head_dense").filters == 24
    assert model.get_layer("head_dense").normalization == "batch"
    assert model.get_layer("stage4_block2").output.shape == (None, 3, 2, 16)  # a fused stride, then attention's
    y = predict(model, images(2, 9, 8, 1))
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)


@pytest.mark.across
def test_a_compact_model_takes_pictures_of_8_pixels():
    assert create_mobilenetv4("compact_nano", 3, (8, 8, 1)).output_shape == (None, 3)


# --- an ordinary Keras model ----------------------------------------------------------------------------------------


@pytest.mark.across
@each_generation
def test_a_models_config_builds_it_again(generation):
    model = create(generation, input_shape=(33, 40, 3), drop_path_rate=0.1, output_stride=16)
    for copy in (keras.Model.from_config(model.get_config()), keras.models.clone_model(model)):
        assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
        assert [layer.get_config() for layer in copy.layers] == [layer.get_config() for layer in model.layers]
        assert [(w.path, w.shape) for w in copy.weights] == [(w.path, w.shape) for w in model.weights]
        assert copy.output_shape == model.output_shape


def test_a_clone_computes_the_same():
    model = randomize(tiny(drop_path_rate=0.1))
    x = images()
    expected = predict(model, x)
    for copy in (keras.Model.from_config(model.get_config()), keras.models.clone_model(model)):
        copy.set_weights(model.get_weights())
        close(predict(copy, x), expected)


def test_saved_and_loaded_without_custom_objects(tmp_path):
    model = randomize(tiny())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]
    x = images()
    close(predict(loaded, x), predict(model, x), 1e-6)


@pytest.mark.across
@each_generation
@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_weights_of_a_saved_model(generation, name, tmp_path):
    model, path = randomize(create(generation)), tmp_path / name
    if path.suffix == ".keras":
        model.save(path)
        by_keras = keras.models.load_model(path)
    else:
        model.save_weights(path)
        by_keras = create(generation)
        by_keras.load_weights(path)
    by_argument = create(generation, weights=path)
    for ours, keras_own, theirs in zip(by_argument.weights, by_keras.weights, model.weights, strict=True):
        np.testing.assert_array_equal(array(ours), array(theirs))
        np.testing.assert_array_equal(array(keras_own), array(theirs))


def test_num_classes_are_those_of_the_weights_unless_named(tmp_path):
    path = str(tmp_path / "model.keras")
    randomize(tiny(7)).save(path)
    assert tiny(None, weights=path).output_shape == (None, 7)


def test_a_frozen_model_trains_nothing():
    model = tiny(dropout_rate=0)
    model.trainable = False
    assert model.trainable_variables == []
    before = model.get_weights()
    close(model(images(), training=True), model(images(), training=False))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_frozen_block_keeps_weights_and_statistics_in_training():
    model = tiny(dropout_rate=0)
    frozen = ("stem", "stage2_block2")
    for name in frozen:
        model.get_layer(name).trainable = False
    before = {layer.name: layer.get_weights() for layer in model.layers}
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", **COMPILED)
    model.fit(images(8, SIZE, SIZE, 3), np.arange(8) % 4, batch_size=4, verbose=0)
    for layer in model.layers:
        changed = [(old != new).any() for old, new in zip(before[layer.name], layer.get_weights(), strict=True)]
        if layer.name in frozen:
            assert changed and not any(changed)
        elif changed:
            assert np.mean(changed) > 0.5, layer.name


@pytest.mark.parametrize(
    "generation", ["v4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("v1", "v2", "v3"))]
)
def test_fit_lowers_the_loss(generation):
    # Two kinds of pictures, told apart by which half is bright.
    x = 0.1 * images(16, SIZE, SIZE, 3)
    x[::2, : SIZE // 2] += 1
    x[1::2, SIZE // 2 :] += 1
    y = keras.utils.to_categorical(np.arange(16) % 2, 2)
    model = create(generation, 2, width_multiplier=0.25, dropout_rate=0)
    model.compile(keras.optimizers.Adam(2e-3), "categorical_crossentropy", **COMPILED)
    losses = model.fit(x, y, batch_size=16, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_gradients_reach_every_trainable_variable():
    model = tiny(dropout_rate=0)
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy", **COMPILED)
    before = [array(v) for v in model.trainable_variables]
    model.train_on_batch(images(4, SIZE, SIZE, 3), np.array([0, 1, 2, 3]))
    still = [v.path for v, old in zip(model.trainable_variables, before, strict=True) if (array(v) == old).all()]
    assert still == []
