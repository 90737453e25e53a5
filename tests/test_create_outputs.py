"""Inputs and outputs of created models: preprocessing, heads, pyramids and output strides."""

import keras
import numpy as np
import pytest

from mobilenet_v4 import create_mobilenetv4
from tests.created import (
    SIZE,
    TINY,
    assert_close,
    create,
    each_generation,
    images,
    predict,
    randomize,
    tiny,
)

# --- input ------------------------------------------------------------------------------------------------------------


def test_include_preprocessing_scales_pixels_to_minus_1_to_1():
    raw, scaled = tiny(include_preprocessing=True), randomize(tiny())
    raw.set_weights(scaled.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype("float32")
    pixels[0, 0, 0] = (0, 127.5, 255)
    assert_close(predict(raw, pixels), predict(scaled, pixels / 127.5 - 1), 1e-4)


def test_input_tensor_continues_another_model():
    image = keras.Input((SIZE, SIZE, 1))
    tripled = keras.layers.Concatenate()([image, image, image])
    model = create_mobilenetv4(TINY, 4, input_tensor=tripled)
    assert model.input_shape == (None, SIZE, SIZE, 1)
    plain = randomize(tiny())
    model.set_weights(plain.get_weights())
    x = images(2, SIZE, SIZE, 1)
    assert_close(predict(model, x), predict(plain, np.repeat(x, 3, axis=-1)))


@pytest.mark.across
def test_input_tensor_may_be_combined_with_its_input_shape():
    image = keras.Input((48, None, 2))
    model = create_mobilenetv4(TINY, 4, (48, None, 2), input_tensor=image)
    assert model.inputs[0] is image


def test_variable_image_size_gives_the_predictions_of_a_fixed_size():
    fixed, variable = tiny(input_shape=(40, 33, 3)), tiny(input_shape=(None, None, 3))
    variable.set_weights(randomize(fixed).get_weights())
    assert variable.input_shape == (None, None, None, 3)
    x = images(2, 40, 33, 3)
    assert_close(predict(variable, x), predict(fixed, x))


# --- output -----------------------------------------------------------------------------------------------------------


def test_classifier_activation_is_applied_to_the_logits():
    logits, softmax, tanh = (tiny(classifier_activation=activation) for activation in (None, "softmax", "tanh"))
    for model in (softmax, tanh):
        model.set_weights(logits.get_weights())
    x = 3 * images()
    expected = predict(logits, x)
    assert (expected.sum(-1) != 1).all()
    exponentials = np.exp(expected)
    assert_close(predict(softmax, x), exponentials / exponentials.sum(-1, keepdims=True))
    assert_close(predict(tanh, x), np.tanh(expected))


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling_reduces_the_feature_map(pooling):
    features = randomize(tiny(include_top=False))
    pooled = tiny(include_top=False, pooling=pooling)
    pooled.set_weights(features.get_weights())
    x = images()
    y = predict(features, x)
    assert y.ndim == 4
    assert_close(predict(pooled, x), y.mean((1, 2)) if pooling == "avg" else y.max((1, 2)))


@pytest.mark.across
@each_generation
def test_feature_extractor_equals_the_body_of_the_classifier(generation):
    classifier, extractor = create(generation), create(generation, include_top=False)
    body = [layer.name for layer in extractor.layers]
    assert [layer.name for layer in classifier.layers][: len(body)] == body
    assert extractor.output.shape == classifier.get_layer(body[-1]).output.shape
    assert not {"pool", "head_dense", "dropout", "classifier"} & set(body)


@pytest.mark.across
@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("generation", ["v1", "v2", "v3", "v4", "v4_hybrid"])
def test_pyramid_levels_are_the_last_feature_maps_of_their_strides(generation, output_stride):
    options = {"include_top": False, "input_shape": (64, 96, 3), "output_stride": output_stride}
    model = create(generation, pyramid_levels=(1, 2, 3, 4, 5), **options)
    assert list(model.output) == ["P1", "P2", "P3", "P4", "P5"]
    for level in range(1, 6):
        stride = min(2**level, output_stride)
        assert model.output[f"P{level}"].shape[1:3] == (64 // stride, 96 // stride)
    # Each level is the last feature map before the next stride or the head.
    published = create(generation, include_top=False, input_shape=(64, 96, 3))
    blocks = [layer for layer in published.layers if layer.name == "stem" or layer.name.startswith("stage")]
    for level in range(1, 6):
        last = [layer.name for layer in blocks if layer.output.shape[1] == 64 // 2**level][-1]
        assert model.output[f"P{level}"] is model.get_layer(last).output


@pytest.mark.across
def test_pyramid_has_only_the_requested_levels():
    model = create("v4", include_top=False, pyramid_levels=[4, 2])
    channels = {name: level.shape[-1] for name, level in model.output.items()}
    assert channels == {"P2": model.get_layer("stage1_block2").filters, "P4": model.get_layer("stage3_block6").filters}


def test_pyramid_outputs_equal_those_of_the_layers():
    pyramid = randomize(tiny(include_top=False, pyramid_levels=(1, 2, 3)))
    names = {"P1": "stage1_block3", "P2": "stage2_block3", "P3": "stage3_block3"}
    probe = keras.Model(pyramid.input, [pyramid.get_layer(name).output for name in names.values()])
    x = images()
    for (level, value), expected in zip(sorted(predict(pyramid, x).items()), predict(probe, x), strict=True):
        assert level in names
        assert_close(value, expected)


# --- output stride ----------------------------------------------------------------------------------------------------


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
    layers = {name: model.get_layer(name) for name in expected}
    assert {name: (layer.strides, layer.dilation_rate) for name, layer in layers.items()} == expected
    assert model.get_layer("stage5_block2").depthwise.dilation_rate == expected["stage5_block2"][1]
    assert model.get_layer("stage5_block2").output.shape[1] == SIZE // output_stride


@pytest.mark.across
def test_output_stride_dilates_the_key_and_value_convolutions_of_attention():
    model = create("v4_hybrid", output_stride=8)
    attention = model.get_layer("stage3_block5")
    assert attention.dilation_rate == 2
    assert (attention.key_down.dilation_rate, attention.key_down.strides) == (2, 2)


def test_dilated_model_contains_the_feature_map_of_the_strided_model():
    """With stride 1 and dilation, every other pixel equals a pixel of the strided model's feature map."""
    strided = randomize(create("v1", include_top=False, input_shape=(64, 64, 3), padding="symmetric"))
    dilated = create("v1", include_top=False, input_shape=(64, 64, 3), padding="symmetric", output_stride=16)
    dilated.set_weights(strided.get_weights())
    x = images(1, 64, 64, 3)
    assert_close(predict(dilated, x)[:, ::2, ::2], predict(strided, x), 1e-4)
