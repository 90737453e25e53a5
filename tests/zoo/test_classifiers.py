"""A fresh classifier on a body that has learned already."""

import keras
import numpy as np
import pytest
from keras import ops

import mobilenet_zoo
from mobilenet_common.architecture import Architecture, Conv, Dense, Head, Inverted
from mobilenet_v4 import create_mobilenetv4

TINY = Architecture(
    name="tiny", stem=Conv(8, stride=2), stages=((Inverted(3, 16, 8, stride=2),),), head=Head(Conv(16, 1), Dense(24))
)
CLASSIFIER = ("classifier", "predictions")


def tiny(num_classes=5, **options):
    return create_mobilenetv4(TINY, num_classes, (32, 32, 3), **options)


def images(count=2):
    return np.random.default_rng(0).standard_normal((count, 32, 32, 3)).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


def test_the_body_is_shared_and_the_classifier_is_fresh():
    model = tiny()
    fresh = mobilenet_zoo.reset_classifier(model, 3)
    assert fresh.output_shape == (None, 3)
    assert model.output_shape == (None, 5)
    assert fresh.name == model.name
    assert [layer.name for layer in fresh.layers] == [layer.name for layer in model.layers]
    for old, new in zip(model.layers, fresh.layers, strict=True):
        assert (old is new) == (old.name not in CLASSIFIER)
    y = array(fresh(images()))
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)


def test_what_comes_before_the_classifier_is_the_same():
    model = tiny()
    fresh = mobilenet_zoo.reset_classifier(model, 3)
    ours, theirs = (keras.Model(m.input, m.get_layer("flatten").output)(images()) for m in (fresh, model))
    np.testing.assert_array_equal(array(ours), array(theirs))
    weights, bias = fresh.get_layer("classifier").get_weights()
    assert weights.shape == (24, 3)
    assert 0.9 / np.sqrt(1000) < np.abs(weights).max() <= 1 / np.sqrt(1000)
    assert not bias.any()


@pytest.mark.across
@pytest.mark.parametrize("activation", ["softmax", None, "sigmoid"])
def test_the_activation_stays_what_it_was(activation):
    fresh = mobilenet_zoo.reset_classifier(tiny(classifier_activation=activation), 3)
    assert fresh.get_layer("predictions").activation is keras.activations.get(activation or "linear")


@pytest.mark.across
@pytest.mark.parametrize("activation", ["softmax", None, "sigmoid"])
def test_or_becomes_another(activation):
    fresh = mobilenet_zoo.reset_classifier(tiny(classifier_activation="tanh"), 3, activation)
    assert fresh.get_layer("predictions").activation is keras.activations.get(activation or "linear")


def test_a_frozen_body_stays_frozen_and_the_classifier_learns():
    model = tiny(dropout_rate=0)
    for layer in model.layers:
        layer.trainable = False
    fresh = mobilenet_zoo.reset_classifier(model, 3)
    assert [v.path.split("/")[0] for v in fresh.trainable_variables] == ["classifier", "classifier"]
    before = {layer.name: layer.get_weights() for layer in fresh.layers}
    fresh.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=False)
    fresh.train_on_batch(images(4), np.array([0, 1, 2, 0]))
    for layer in fresh.layers:
        changed = any((old != new).any() for old, new in zip(before[layer.name], layer.get_weights(), strict=True))
        assert changed == (layer.name == "classifier")


@pytest.mark.across
def test_mixed_precision_is_kept():
    fresh = mobilenet_zoo.reset_classifier(tiny(dtype="mixed_bfloat16"), 3)
    assert fresh.get_layer("classifier").compute_dtype == "bfloat16"
    assert fresh.outputs[0].dtype == "float32"


def test_a_model_that_was_saved_and_loaded(tmp_path):
    tiny().save(tmp_path / "model.keras")
    fresh = mobilenet_zoo.reset_classifier(keras.models.load_model(tmp_path / "model.keras"), 3)
    assert fresh.output_shape == (None, 3)
    fresh.save(tmp_path / "fresh.keras")
    again = keras.models.load_model(tmp_path / "fresh.keras")
    np.testing.assert_allclose(array(again(images())), array(fresh(images())), rtol=1e-5, atol=1e-6)


@pytest.mark.across
@pytest.mark.parametrize("options", [{}, {"pooling": "avg"}, {"pyramid_levels": (1, 2)}])
def test_a_feature_extractor_has_no_classifier(options):
    model = create_mobilenetv4(TINY, input_shape=(32, 32, 3), include_top=False, **options)
    with pytest.raises(ValueError, match="tiny has no classifier to replace"):
        mobilenet_zoo.reset_classifier(model, 3)


@pytest.mark.across
@pytest.mark.parametrize("num_classes", [0, -1, 2.0, None, True])
def test_num_classes_is_checked(num_classes):
    with pytest.raises(ValueError, match=f"num_classes={num_classes!r} .* at least 1"):
        mobilenet_zoo.reset_classifier(tiny(), num_classes)


@pytest.mark.across
def test_the_activation_is_checked():
    with pytest.raises(ValueError, match="classifier_activation='sofmax'"):
        mobilenet_zoo.reset_classifier(tiny(), 3, "sofmax")
