"""Properties that hold for any variant, width, size, channels and options: a model says what it will output."""

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
# Averages at a stride of 2 drop an odd row or column; all other strides round up.
ROUNDS_DOWN = ("conv_aa_medium", "conv_aa_large")

channels = st.integers(1, 5)
# Few sizes on purpose: some divide by 32, some by nothing.
sizes = st.sampled_from([32, 33, 47, 64, 70])


def create(model, **options):
    """A model of `(generation, variant)`."""
    generation, variant = model
    return getattr(MODULES[generation], f"create_mobilenet{generation}")(variant, **options)


def strides(model):
    """The number of strided blocks that a model has, stem included."""
    generation, variant = model
    architecture = MODULES[generation].VARIANTS[variant]
    return sum(row.stride == 2 for row in [architecture.stem, *(row for _, row in architecture.blocks())])


def image_shape(height, width, count, data_format):
    return (height, width, count) if data_format == "channels_last" else (count, height, width)


def halved(size, times, model):
    """A side's length after strides of 2."""
    first = True
    for _ in range(times):
        down = model[1] in ROUNDS_DOWN and not first  # the stem itself strides as usual
        size, first = (size // 2 if down else -(-size // 2)), False
    return size


@st.composite
def models(draw, candidates):
    """A model, its options, and its image's height, width and channels."""
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
            levels = st.sampled_from(range(1, strides(model) + 1))
            options["pyramid_levels"] = tuple(draw(st.lists(levels, min_size=1, unique=True)))
    return model, options, (height, width, count)


def map_size(model, options, size, level=None):
    """Height and width of a level's map."""
    times = strides(model) if level is None else level
    return tuple(halved(n, min(times, int(np.log2(options["output_stride"]))), model) for n in size)


def spatial(shape, options):
    return shape[1:3] if options["data_format"] == "channels_last" else shape[2:4]


def shapes_as_announced(made, options):
    """Assert that a real output has the shapes that the model announces."""
    x = np.zeros((2, *options["input_shape"]), "float32")
    real = made.predict(x, verbose=0)
    announced = made.output
    if not isinstance(announced, dict):
        real, announced = {"": real}, {"": announced}
    assert {name: value.shape[1:] for name, value in real.items()} == {
        name: level.shape[1:] for name, level in announced.items()
    }
    assert all(value.shape[0] == 2 and np.isfinite(value).all() for value in real.values())


def check_announced(made, model, options, size):
    """Assert that the announced shapes are those of the arithmetic."""
    if options["include_top"]:
        assert made.output_shape == (None, options["num_classes"])
    elif options["pooling"]:
        assert len(made.output_shape) == 2
    elif "pyramid_levels" in options:
        assert made.output.keys() == {f"P{level}" for level in options["pyramid_levels"]}
        for level in options["pyramid_levels"]:
            expected = map_size(model, options, size, level)
            assert spatial(made.output[f"P{level}"].shape, options) == expected
    else:
        assert spatial(made.output_shape, options) == map_size(model, options, size)


@pytest.mark.across
@settings(max_examples=40)
@given(models(MODELS))
def test_shapes_follow_from_size_and_stride(drawn):
    model, options, (*size, count) = drawn
    made = create(model, **options)
    assert made.input_shape == (None, *options["input_shape"])
    assert made.get_layer("stem").kernel.shape[2] == count
    check_announced(made, model, options, size)
    keras.utils.clear_session()


@pytest.mark.neutral
@settings(max_examples=6)
@given(models(SMALL))
def test_a_model_says_what_it_will_output(drawn):
    model, options, _ = drawn
    shapes_as_announced(create(model, **options), options)
    keras.utils.clear_session()


@pytest.mark.slow
@settings(max_examples=150)
@given(models(MODELS))
def test_every_model_says_what_it_will_output(drawn):
    model, options, (*size, _) = drawn
    made = create(model, **options)
    check_announced(made, model, options, size)
    shapes_as_announced(made, options)
    keras.utils.clear_session()


@pytest.mark.neutral
@settings(max_examples=3)
@given(st.sampled_from(SMALL), sizes, sizes)
def test_a_model_with_free_sides_gives_what_one_with_fixed_sides_gives(model, height, width):
    free = create(model, width_multiplier=0.1, num_classes=3, input_shape=(None, None, 3))
    fixed = create(model, width_multiplier=0.1, num_classes=3, input_shape=(height, width, 3))
    fixed.set_weights(free.get_weights())
    x = np.random.default_rng(0).standard_normal((1, height, width, 3)).astype("float32")
    np.testing.assert_allclose(free.predict(x, verbose=0), fixed.predict(x, verbose=0), rtol=1e-4, atol=1e-6)
    keras.utils.clear_session()


@pytest.mark.across
@settings(max_examples=30)
@given(st.sampled_from(MODELS), st.floats(0.01, 4, exclude_min=False))
def test_any_width_gives_valid_channels(model, width):
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
def test_output_stride_changes_no_weight(model, width, output_stride):
    options = {"width_multiplier": width, "input_shape": (64, 64, 3), "include_top": False}
    published, dilated = create(model, **options), create(model, output_stride=output_stride, **options)
    assert [w.path for w in published.weights] == [w.path for w in dilated.weights]
    assert [w.shape for w in published.weights] == [w.shape for w in dilated.weights]
    assert dilated.output.shape[1:3] == (64 // min(output_stride, 2 ** strides(model)),) * 2
    keras.utils.clear_session()
