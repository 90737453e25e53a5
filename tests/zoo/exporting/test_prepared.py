"""What of a model is exported: folded, in float32, and in the data format that the file has."""

import keras
import numpy as np
import pytest

from mobilenet_zoo.exporting.prepared import data_format_of, with_blocks
from mobilenet_zoo.exporting.reference import Reference
from tests.seeded import randomized
from tests.zoo.exporting.shared import SIZE, answers, images, prepared, relative, tiny, with_a_head

pytestmark = pytest.mark.across


def same(model, other, x, tolerance=1e-5):
    for found, expected in zip(
        keras.tree.flatten(answers(other, x)), keras.tree.flatten(answers(model, x)), strict=True
    ):
        assert relative(found, expected) <= tolerance


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def test_batch_norm_and_dropout_go():
    model = tiny(dropout_rate=0.5)
    model.compile("adam", "categorical_crossentropy")
    copy = prepared(model)
    same(model, copy, images())
    assert "Dropout" in kinds(model)
    assert "Dropout" not in kinds(copy)
    assert not [weight.path for weight in copy.weights if "moving" in weight.path or "gamma" in weight.path]


@pytest.mark.parametrize("own", ["channels_last", "channels_first"])
@pytest.mark.parametrize("wanted", ["channels_last", "channels_first"])
@pytest.mark.parametrize("options", [{}, {"include_top": False}, {"include_top": False, "pooling": "avg"}], ids=str)
def test_the_data_format_changes(own, wanted, options):
    shape = (SIZE, SIZE, 3) if own == "channels_last" else (3, SIZE, SIZE)
    model = tiny(data_format=own, input_shape=shape, **options)
    copy = prepared(model, data_format=wanted)
    assert data_format_of(copy) == wanted
    assert {layer.data_format for layer in copy._flatten_layers() if hasattr(layer, "data_format")} >= {wanted}
    assert copy.inputs[0].shape[1:] == ((SIZE, SIZE, 3) if wanted == "channels_last" else (3, SIZE, SIZE))
    same(model, copy, images())


def test_the_size_changes():
    """As a model answers that was built for that size."""
    model = tiny()
    other = tiny(input_shape=(48, 40, 3))
    other.set_weights(model.get_weights())
    same(other, prepared(model, (48, 40), "channels_first"), images(2, 48, 40))


def test_free_height_and_width_are_set():
    model = tiny(input_shape=(None, None, 3))
    copy = prepared(model, (48, 40))
    assert copy.inputs[0].shape == (None, 48, 40, 3)
    same(model, copy, images(2, 48, 40))


@pytest.mark.parametrize(("mean", "std"), [((0.5,) * 3, (0.25,) * 3), ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))], ids=str)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_scaling_goes_inside(mean, std, data_format):
    model = tiny()
    copy = prepared(model, data_format=data_format, scaling=(mean, std))
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype("float32")
    expected = answers(model, ((pixels / 255 - np.array(mean)) / np.array(std)).astype("float32"))
    assert relative(answers(copy, pixels), expected) <= 1e-5


@pytest.mark.parametrize("activation", ["softmax", None])
def test_softmax_comes_and_goes(activation):
    model = tiny(classifier_activation=activation)
    x = images()
    logits = answers(prepared(model, softmax=False), x)
    probabilities = answers(prepared(model, softmax=True), x)
    own = answers(model, x)
    np.testing.assert_allclose(own, logits if activation is None else probabilities, rtol=1e-4, atol=1e-5)
    powers = np.exp(logits.astype("float64"))
    np.testing.assert_allclose(probabilities, powers / powers.sum(1, keepdims=True), rtol=1e-4)
    assert logits.min() < 0
    for softmax, expected in ((True, probabilities), (False, logits), (None, own)):
        (found,) = Reference(model, (SIZE, SIZE), softmax)(x)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_pyramids_keep_their_keys():
    model = tiny(include_top=False, pyramid_levels=(1, 2))
    copy = prepared(model, data_format="channels_first")
    assert list(copy.output) == ["P1", "P2"]
    same(model, copy, images())
    blocks = with_blocks(copy).output
    assert [*blocks][:3] == ["stem", "stage1_block1", "stage1_block2"]


def test_own_layers_of_keras_turn_too():
    layers = keras.layers
    head = [
        layers.Conv2D(6, 3, padding="same", activation="relu", name="own_convolution"),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(4, activation="softmax"),
    ]
    model = with_a_head(*head[:2], layers.GlobalAveragePooling2D(), *head[3:])
    copy = prepared(model, data_format="channels_first")
    assert copy.get_layer("own_convolution").data_format == "channels_first"
    same(model, copy, images())


def test_a_layer_that_does_not_turn_keeps_the_data_format():
    """Nor does a batch norm by an axis, nor a layer that Keras hasn't."""
    model = with_a_head(keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3))
    copy = prepared(model, data_format="channels_first")
    assert data_format_of(copy) == "channels_last"
    assert copy.inputs[0].shape[1:] == (SIZE, SIZE, 3)
    same(model, copy, images())


def test_functions_between_layers_keep_the_data_format():
    """Nobody knows what their axes are."""
    body = tiny(include_top=False, dtype="mixed_bfloat16")
    means = keras.ops.mean(2 * body.output, axis=(1, 2))
    model = randomized(keras.Model(body.input, keras.layers.Dense(3, dtype="float32")(means)))
    copy = prepared(model, (40, 48), data_format="channels_first")
    assert data_format_of(copy) == "channels_last"
    (expected,) = Reference(model, (40, 48))(images(2, 40, 48))
    assert relative(answers(copy, images(2, 40, 48)), expected) <= 1e-5


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("is_nested", [False, True])
def test_mixed_precision_becomes_float32(policy, is_nested):
    plain, model = tiny(), tiny(dtype=policy)
    model.set_weights(plain.get_weights())
    if is_nested:
        image = keras.Input((SIZE, SIZE, 3))
        model, plain = (keras.Model(image, keras.layers.ReLU()(one(image))) for one in (model, plain))
    copy = prepared(model, data_format="channels_first")
    assert {layer.compute_dtype for layer in copy._flatten_layers()} == {"float32"}
    same(plain, copy, images())
    (found,) = Reference(model, (SIZE, SIZE))(images())
    assert relative(found, answers(plain, images())) <= 1e-5
