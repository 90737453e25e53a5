"""The create functions: variants and their defaults, names, and custom architectures."""

import keras
import numpy as np
import pytest

from mobilenet_common.architecture import (
    Architecture,
)
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import compact_architecture, create_mobilenetv4
from tests.created import (
    SIZE,
    TINY,
    WIDTH,
    create,
    each_generation,
    images,
    layers_of,
    predict,
    tiny,
)

# --- variants and defaults --------------------------------------------------------------------------------------------


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
def test_create_function_without_arguments_builds_the_default_model(function, default, parameters):
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
def test_default_options_of_each_generation(generation, dropout, momentum, epsilon, padding):
    model = create(generation)
    assert model.get_layer("dropout").rate == dropout
    normalized = [layer for layer in layers_of(model) if getattr(layer, "normalization", None)]
    assert {layer.norm_momentum for layer in normalized} == {momentum}
    assert {layer.norm_epsilon for layer in normalized} == {epsilon}
    assert {layer.padding for layer in normalized if hasattr(layer, "padding")} == {padding}


@pytest.mark.across
def test_largest_compact_model_has_a_higher_dropout_rate():
    assert create_mobilenetv4("compact_hybrid_large", width_multiplier=WIDTH).get_layer("dropout").rate == 0.3


@pytest.mark.across
@pytest.mark.parametrize("variant", [0.5, "0.5", "0.50", "0.500"])
def test_width_variant_may_be_a_number_or_a_string(variant):
    model = create_mobilenetv1(variant, 3, (SIZE, SIZE, 3))
    assert model.name == "mobilenetv1_050"
    assert model.get_layer("stem").filters == 16


@pytest.mark.across
@pytest.mark.parametrize("variant", [1, 1.0, "1", "1.0"])
def test_full_width_variant_may_be_a_number_or_a_string(variant):
    assert create_mobilenetv2(variant, 3, (SIZE, SIZE, 3)).name == "mobilenetv2_100"


@pytest.mark.across
def test_width_multiplier_scales_the_width_of_the_variant():
    model = create_mobilenetv1("0.5", 3, (SIZE, SIZE, 3), 0.5)
    assert model.name == "mobilenetv1_025"
    assert [w.shape for w in model.weights] == [w.shape for w in create_mobilenetv1(0.25, 3, (SIZE, SIZE, 3)).weights]


@pytest.mark.across
@each_generation
def test_num_classes_is_the_size_of_the_output(generation):
    for classes in (1, 7):
        assert create(generation, classes, classifier_activation=None).output_shape == (None, classes)


@pytest.mark.parametrize("channels", [1, 5])
def test_images_may_have_any_number_of_channels(channels):
    model = tiny(input_shape=(SIZE, SIZE, channels))
    assert model.get_layer("stem").kernel.shape[2] == channels
    assert predict(model, images(2, SIZE, SIZE, channels)).shape == (2, 4)


# --- names and the summary --------------------------------------------------------------------------------------------


@pytest.mark.across
def test_layer_names_follow_stages_and_blocks():
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
def test_summary_has_a_row_per_block_and_names_are_stable(generation):
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
def test_model_name_contains_variant_and_width(generation, width, name):
    assert create(generation, width_multiplier=width).name == name
    assert create(generation, width_multiplier=width, name="mine").name == "mine"


# --- custom architectures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [8, 24, 1])
def test_body_without_stem_accepts_any_number_of_channels(channels):
    body = Architecture(stem=None, stages=TINY.stages, head=None)
    model = create_mobilenetv4(body, input_shape=(10, 7, channels), include_top=False)
    assert [layer.name for layer in model.layers][1] == "stage1_block1"
    assert predict(model, images(2, 10, 7, channels)).shape == (2, 3, 2, 16)


def test_body_works_inside_another_network():
    x = image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(12, 3)(x)
    body = create_mobilenetv4(Architecture(stem=None, stages=TINY.stages, head=None), include_top=False, input_tensor=x)
    model = keras.Model(image, keras.layers.Flatten()(body.output))
    assert predict(model, images(2, 16, 16, 3)).shape == (2, 4 * 4 * 16)


@pytest.mark.across
def test_architecture_without_head_requires_include_top_false():
    headless = Architecture(stem=TINY.stem, stages=TINY.stages, head=None)
    model = create_mobilenetv4(headless, input_shape=(SIZE, SIZE, 3), include_top=False, pooling="avg")
    assert model.output_shape == (None, 16)
    with pytest.raises(ValueError, match="include_top=True needs an architecture with a head"):
        create_mobilenetv4(headless)


@pytest.mark.across
@pytest.mark.parametrize("function", [create_mobilenetv1, create_mobilenetv2, create_mobilenetv3, create_mobilenetv4])
def test_every_create_function_accepts_an_architecture(function):
    model = function(TINY, 5, (SIZE, SIZE, 3), 0.5)
    assert model.name == "tiny_050"
    assert model.output_shape == (None, 5)
    assert model.get_layer("stage3_block3").filters == 8


def test_custom_compact_model():
    architecture = compact_architecture(16, 32, 4, 2, 1, 1, 1, 1, 24, dropout_rate=0.1, downsampling=True, name="mine")
    model = create_mobilenetv4(architecture, 6, (9, 8, 1))
    assert model.name == "mine"
    assert model.get_layer("dropout").rate == 0.1
    assert model.get_layer("head_dense").filters == 24
    assert model.get_layer("head_dense").normalization == "batch"
    # A fused block halves the feature map, then attention does.
    assert model.get_layer("stage4_block2").output.shape == (None, 3, 2, 16)
    y = predict(model, images(2, 9, 8, 1))
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)


@pytest.mark.across
def test_compact_model_accepts_images_of_8_pixels():
    assert create_mobilenetv4("compact_nano", 3, (8, 8, 1)).output_shape == (None, 3)
