"""Properties of any variant, width, image size and options: shapes, channels and weights are as expected."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mobilenet_v1
import mobilenet_v2
import mobilenet_v3
import mobilenet_v4

MODULES = {"v1": mobilenet_v1, "v2": mobilenet_v2, "v3": mobilenet_v3, "v4": mobilenet_v4}
MODELS = [(generation, variant) for generation, module in MODULES.items() for variant in module.VARIANTS]
SMALL = [
    ("v1", "0.5"),
    ("v2", "0.35"),
    ("v3", "small"),
    ("v3", "small_minimalistic"),
    ("v4", "conv_small"),
    ("v4", "compact_nano"),
]
# Average pooling with stride 2 drops an odd row or column. All other strides round up.
ROUNDS_DOWN = ("conv_aa_medium", "conv_aa_large")

channels = st.integers(1, 5)
# A few sizes suffice: multiples of 32 and others, even and odd.
sizes = st.sampled_from([32, 33, 47, 64, 70])


def create(model, **options):
    """Create a model of `(generation, variant)`."""
    generation, variant = model
    return getattr(MODULES[generation], f"create_mobilenet{generation}")(variant, **options)


def count_strides(model):
    """Return the number of strided blocks of a model, including the stem."""
    generation, variant = model
    architecture = MODULES[generation].VARIANTS[variant]
    return sum(row.stride == 2 for row in [architecture.stem, *(row for _, row in architecture.blocks())])


def image_shape(height, width, count, data_format):
    return (height, width, count) if data_format == "channels_last" else (count, height, width)


def halved(size, times, model):
    """Return the length of a side after `times` strides of 2."""
    first = True
    for _ in range(times):
        rounds_down = model[1] in ROUNDS_DOWN and not first  # the stem always rounds up
        size, first = (size // 2 if rounds_down else -(-size // 2)), False
    return size


@st.composite
def models(draw, candidates):
    """Draw a model, its options, and the height, width and channels of its images."""
    model = draw(st.sampled_from(candidates))
    height, width, count = draw(sizes), draw(sizes), draw(channels)
    data_format = draw(st.sampled_from(["channels_last", "channels_first"]))
    options = {
        "width_multiplier": draw(st.sampled_from([0.05, 0.1, 0.2])),
        "input_shape": image_shape(height, width, count, data_format),
        "data_format": data_format,
        "output_stride": draw(st.sampled_from([32, 16, 8])),
        "padding": draw(st.sampled_from([None, "same", "symmetric"])),
        "include_top": draw(st.booleans()),
    }
    if options["include_top"]:
        options["num_classes"] = draw(st.integers(1, 20))
    else:
        options["pooling"] = draw(st.sampled_from([None, "avg", "max"]))
        if options["pooling"] is None and draw(st.booleans()):
            levels = st.sampled_from(range(1, count_strides(model) + 1))
            options["pyramid_levels"] = tuple(draw(st.lists(levels, min_size=1, unique=True)))
    return model, options, (height, width, count)


def map_size(model, options, size, level=None):
    """Return the height and width of a level's feature map."""
    times = count_strides(model) if level is None else level
    return tuple(halved(n, min(times, int(np.log2(options["output_stride"]))), model) for n in size)


def spatial(shape, options):
    return shape[1:3] if options["data_format"] == "channels_last" else shape[2:4]


def assert_predictions_have_symbolic_shapes(keras_model, options):
    """Assert that predictions have the shapes of the model's symbolic outputs."""
    x = np.zeros((2, *options["input_shape"]), "float32")
    predictions = keras_model.predict(x, verbose=0)
    symbolic = keras_model.output
    if not isinstance(symbolic, dict):
        predictions, symbolic = {"": predictions}, {"": symbolic}
    assert {name: value.shape[1:] for name, value in predictions.items()} == {
        name: level.shape[1:] for name, level in symbolic.items()
    }
    assert all(value.shape[0] == 2 and np.isfinite(value).all() for value in predictions.values())


def assert_symbolic_shapes(keras_model, model, options, size):
    """Assert that a model's symbolic outputs have the shapes that follow from its options and its image size."""
    if options["include_top"]:
        assert keras_model.output_shape == (None, options["num_classes"])
    elif options["pooling"]:
        assert len(keras_model.output_shape) == 2
    elif "pyramid_levels" in options:
        assert keras_model.output.keys() == {f"P{level}" for level in options["pyramid_levels"]}
        for level in options["pyramid_levels"]:
            expected = map_size(model, options, size, level)
            assert spatial(keras_model.output[f"P{level}"].shape, options) == expected
    else:
        assert spatial(keras_model.output_shape, options) == map_size(model, options, size)


@pytest.mark.across
@settings(max_examples=40)
@given(models(MODELS))
def test_symbolic_shapes_follow_from_size_and_stride(drawn):
    model, options, (*size, count) = drawn
    keras_model = create(model, **options)
    assert keras_model.input_shape == (None, *options["input_shape"])
    assert keras_model.get_layer("stem").kernel.shape[2] == count
    assert_symbolic_shapes(keras_model, model, options, size)
    keras.utils.clear_session()


@pytest.mark.neutral
@settings(max_examples=6)
@given(models(SMALL))
def test_predictions_of_small_models_have_the_symbolic_shapes(drawn):
    model, options, _ = drawn
    assert_predictions_have_symbolic_shapes(create(model, **options), options)
    keras.utils.clear_session()


@pytest.mark.slow
@settings(max_examples=150)
@given(models(MODELS))
def test_predictions_of_all_models_have_the_symbolic_shapes(drawn):
    model, options, (*size, _) = drawn
    keras_model = create(model, **options)
    assert_symbolic_shapes(keras_model, model, options, size)
    assert_predictions_have_symbolic_shapes(keras_model, options)
    keras.utils.clear_session()


@pytest.mark.neutral
@settings(max_examples=3)
@given(st.sampled_from(SMALL), sizes, sizes)
def test_variable_image_size_gives_the_predictions_of_a_fixed_size(model, height, width):
    variable = create(model, width_multiplier=0.1, num_classes=3, input_shape=(None, None, 3))
    fixed = create(model, width_multiplier=0.1, num_classes=3, input_shape=(height, width, 3))
    fixed.set_weights(variable.get_weights())
    x = np.random.default_rng(0).standard_normal((1, height, width, 3)).astype("float32")
    np.testing.assert_allclose(variable.predict(x, verbose=0), fixed.predict(x, verbose=0), rtol=1e-4, atol=1e-6)
    keras.utils.clear_session()


@pytest.mark.across
@settings(max_examples=30)
@given(st.sampled_from(MODELS), st.floats(0.01, 4, exclude_min=False))
def test_any_width_gives_valid_numbers_of_channels(model, width):
    generation, variant = model
    architecture = MODULES[generation].VARIANTS[variant]
    scaled = architecture.scaled(width)
    for _, row in scaled.blocks():
        if row.filters is not None:
            assert row.filters >= 1
            assert row.filters % architecture.divisor == 0 or architecture.rounding == "truncate"
        if getattr(row, "expanded", None) is not None:
            assert row.expanded % 8 == 0
    if width >= 1:
        pairs = zip(architecture.scaled().blocks(), scaled.blocks(), strict=True)
        assert all(new.filters is None or new.filters >= old.filters for (_, old), (_, new) in pairs)


@pytest.mark.across
@settings(max_examples=15)
@given(st.sampled_from(SMALL), st.sampled_from([0.1, 0.3]), st.sampled_from([8, 16]))
def test_output_stride_keeps_names_and_shapes_of_weights(model, width, output_stride):
    options = {"width_multiplier": width, "input_shape": (64, 64, 3), "include_top": False}
    published, dilated = create(model, **options), create(model, output_stride=output_stride, **options)
    assert [w.path for w in published.weights] == [w.path for w in dilated.weights]
    assert [w.shape for w in published.weights] == [w.shape for w in dilated.weights]
    assert dilated.output.shape[1:3] == (64 // min(output_stride, 2 ** count_strides(model)),) * 2
    keras.utils.clear_session()
