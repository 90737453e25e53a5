"""`prepare`: a copy of the model for export, with folded batch norm, in float32 and the data format of the file."""

import keras
import numpy as np
import pytest

from mobilenet_zoo.exporting.prepared import data_format_of, with_blocks
from mobilenet_zoo.exporting.reference import Reference
from tests.seeded import randomized
from tests.zoo.exporting.shared import SIZE, images, predict, prepared_copy, relative_deviation, tiny, with_head

pytestmark = pytest.mark.across


def assert_same_outputs(model, other, x, tolerance=1e-5):
    for outputs, expected in zip(
        keras.tree.flatten(predict(other, x)), keras.tree.flatten(predict(model, x)), strict=True
    ):
        assert relative_deviation(outputs, expected) <= tolerance


def layer_types(model):
    return [type(layer).__name__ for layer in model.layers]


def test_batch_norm_and_dropout_are_removed():
    model = tiny(dropout_rate=0.5)
    model.compile("adam", "categorical_crossentropy")
    copy = prepared_copy(model)
    assert_same_outputs(model, copy, images())
    assert "Dropout" in layer_types(model)
    assert "Dropout" not in layer_types(copy)
    assert not [weight.path for weight in copy.weights if "moving" in weight.path or "gamma" in weight.path]


@pytest.mark.parametrize("source_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("target_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("options", [{}, {"include_top": False}, {"include_top": False, "pooling": "avg"}], ids=str)
def test_data_format_is_converted(source_format, target_format, options):
    shape = (SIZE, SIZE, 3) if source_format == "channels_last" else (3, SIZE, SIZE)
    model = tiny(data_format=source_format, input_shape=shape, **options)
    copy = prepared_copy(model, data_format=target_format)
    assert data_format_of(copy) == target_format
    assert {layer.data_format for layer in copy._flatten_layers() if hasattr(layer, "data_format")} >= {target_format}
    assert copy.inputs[0].shape[1:] == ((SIZE, SIZE, 3) if target_format == "channels_last" else (3, SIZE, SIZE))
    assert_same_outputs(model, copy, images())


def test_image_size_is_changed():
    """The copy predicts the same as a model that was built for that size."""
    model = tiny()
    other = tiny(input_shape=(48, 40, 3))
    other.set_weights(model.get_weights())
    assert_same_outputs(other, prepared_copy(model, (48, 40), "channels_first"), images(2, 48, 40))


def test_free_height_and_width_are_set():
    model = tiny(input_shape=(None, None, 3))
    copy = prepared_copy(model, (48, 40))
    assert copy.inputs[0].shape == (None, 48, 40, 3)
    assert_same_outputs(model, copy, images(2, 48, 40))


@pytest.mark.parametrize(("mean", "std"), [((0.5,) * 3, (0.25,) * 3), ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))], ids=str)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_scaling_becomes_part_of_the_model(mean, std, data_format):
    model = tiny()
    copy = prepared_copy(model, data_format=data_format, scaling=(mean, std))
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype("float32")
    expected = predict(model, ((pixels / 255 - np.array(mean)) / np.array(std)).astype("float32"))
    assert relative_deviation(predict(copy, pixels), expected) <= 1e-5


@pytest.mark.parametrize("activation", ["softmax", None])
def test_softmax_is_added_or_removed(activation):
    model = tiny(classifier_activation=activation)
    x = images()
    logits = predict(prepared_copy(model, softmax=False), x)
    probabilities = predict(prepared_copy(model, softmax=True), x)
    outputs = predict(model, x)
    np.testing.assert_allclose(outputs, logits if activation is None else probabilities, rtol=1e-4, atol=1e-5)
    exponentials = np.exp(logits.astype("float64"))
    np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(1, keepdims=True), rtol=1e-4)
    assert logits.min() < 0
    for softmax, expected in ((True, probabilities), (False, logits), (None, outputs)):
        (reference_outputs,) = Reference(model, (SIZE, SIZE), softmax)(x)
        np.testing.assert_allclose(reference_outputs, expected, rtol=1e-4, atol=1e-5)


def test_pyramids_keep_their_keys():
    model = tiny(include_top=False, pyramid_levels=(1, 2))
    copy = prepared_copy(model, data_format="channels_first")
    assert list(copy.output) == ["P1", "P2"]
    assert_same_outputs(model, copy, images())
    blocks = with_blocks(copy).output
    assert [*blocks][:3] == ["stem", "stage1_block1", "stage1_block2"]


def test_layers_of_keras_are_converted():
    layers = keras.layers
    head = [
        layers.Conv2D(6, 3, padding="same", activation="relu", name="own_convolution"),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(4, activation="softmax"),
    ]
    model = with_head(*head[:2], layers.GlobalAveragePooling2D(), *head[3:])
    copy = prepared_copy(model, data_format="channels_first")
    assert copy.get_layer("own_convolution").data_format == "channels_first"
    assert_same_outputs(model, copy, images())


def test_layer_that_is_not_converted_keeps_the_data_format():
    """Keras's batch norm isn't converted."""
    model = with_head(keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3))
    copy = prepared_copy(model, data_format="channels_first")
    assert data_format_of(copy) == "channels_last"
    assert copy.inputs[0].shape[1:] == (SIZE, SIZE, 3)
    assert_same_outputs(model, copy, images())


def test_operations_between_layers_keep_the_data_format():
    """The meaning of their axes isn't known."""
    body = tiny(include_top=False, dtype="mixed_bfloat16")
    means = keras.ops.mean(2 * body.output, axis=(1, 2))
    model = randomized(keras.Model(body.input, keras.layers.Dense(3, dtype="float32")(means)))
    copy = prepared_copy(model, (40, 48), data_format="channels_first")
    assert data_format_of(copy) == "channels_last"
    (expected,) = Reference(model, (40, 48))(images(2, 40, 48))
    assert relative_deviation(predict(copy, images(2, 40, 48)), expected) <= 1e-5


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("is_nested", [False, True])
def test_mixed_precision_becomes_float32(policy, is_nested):
    plain, model = tiny(), tiny(dtype=policy)
    model.set_weights(plain.get_weights())
    if is_nested:
        image = keras.Input((SIZE, SIZE, 3))
        model, plain = (keras.Model(image, keras.layers.ReLU()(inner(image))) for inner in (model, plain))
    copy = prepared_copy(model, data_format="channels_first")
    assert {layer.compute_dtype for layer in copy._flatten_layers()} == {"float32"}
    assert_same_outputs(plain, copy, images())
    (outputs,) = Reference(model, (SIZE, SIZE))(images())
    assert relative_deviation(outputs, predict(plain, images())) <= 1e-5
