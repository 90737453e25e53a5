"""`reset_classifier`: a new classifier on a trained body."""

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


def test_body_is_shared_and_classifier_is_new():
    model = tiny()
    new_model = mobilenet_zoo.reset_classifier(model, 3)
    assert new_model.output_shape == (None, 3)
    assert model.output_shape == (None, 5)
    assert new_model.name == model.name
    assert [layer.name for layer in new_model.layers] == [layer.name for layer in model.layers]
    for old, new in zip(model.layers, new_model.layers, strict=True):
        assert (old is new) == (old.name not in CLASSIFIER)
    y = array(new_model(images()))
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)


def test_features_stay_and_classifier_is_initialized():
    model = tiny()
    new_model = mobilenet_zoo.reset_classifier(model, 3)
    new_features, old_features = (
        keras.Model(m.input, m.get_layer("flatten").output)(images()) for m in (new_model, model)
    )
    np.testing.assert_array_equal(array(new_features), array(old_features))
    weights, bias = new_model.get_layer("classifier").get_weights()
    assert weights.shape == (24, 3)
    assert 0.9 / np.sqrt(1000) < np.abs(weights).max() <= 1 / np.sqrt(1000)
    assert not bias.any()


@pytest.mark.across
@pytest.mark.parametrize("activation", ["softmax", None, "sigmoid"])
def test_activation_is_kept_by_default(activation):
    new_model = mobilenet_zoo.reset_classifier(tiny(classifier_activation=activation), 3)
    assert new_model.get_layer("predictions").activation is keras.activations.get(activation or "linear")


@pytest.mark.across
@pytest.mark.parametrize("activation", ["softmax", None, "sigmoid"])
def test_activation_can_be_replaced(activation):
    new_model = mobilenet_zoo.reset_classifier(tiny(classifier_activation="tanh"), 3, activation)
    assert new_model.get_layer("predictions").activation is keras.activations.get(activation or "linear")


def test_frozen_body_stays_frozen_and_classifier_trains():
    model = tiny(dropout_rate=0)
    for layer in model.layers:
        layer.trainable = False
    new_model = mobilenet_zoo.reset_classifier(model, 3)
    assert [v.path.split("/")[0] for v in new_model.trainable_variables] == ["classifier", "classifier"]
    before = {layer.name: layer.get_weights() for layer in new_model.layers}
    new_model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=False)
    new_model.train_on_batch(images(4), np.array([0, 1, 2, 0]))
    for layer in new_model.layers:
        changed = any((old != new).any() for old, new in zip(before[layer.name], layer.get_weights(), strict=True))
        assert changed == (layer.name == "classifier")


@pytest.mark.across
def test_mixed_precision_is_kept():
    new_model = mobilenet_zoo.reset_classifier(tiny(dtype="mixed_bfloat16"), 3)
    assert new_model.get_layer("classifier").compute_dtype == "bfloat16"
    assert new_model.outputs[0].dtype == "float32"


def test_loaded_model_can_be_reset_and_saved(tmp_path):
    tiny().save(tmp_path / "model.keras")
    new_model = mobilenet_zoo.reset_classifier(keras.models.load_model(tmp_path / "model.keras"), 3)
    assert new_model.output_shape == (None, 3)
    new_model.save(tmp_path / "fresh.keras")
    loaded = keras.models.load_model(tmp_path / "fresh.keras")
    np.testing.assert_allclose(array(loaded(images())), array(new_model(images())), rtol=1e-5, atol=1e-6)


@pytest.mark.across
@pytest.mark.parametrize("options", [{}, {"pooling": "avg"}, {"pyramid_levels": (1, 2)}])
def test_feature_extractor_raises(options):
    model = create_mobilenetv4(TINY, input_shape=(32, 32, 3), include_top=False, **options)
    with pytest.raises(ValueError, match="tiny has no classifier to replace"):
        mobilenet_zoo.reset_classifier(model, 3)


@pytest.mark.across
@pytest.mark.parametrize("num_classes", [0, -1, 2.0, None, True])
def test_wrong_num_classes_raises(num_classes):
    with pytest.raises(ValueError, match=f"num_classes={num_classes!r} .* at least 1"):
        mobilenet_zoo.reset_classifier(tiny(), num_classes)


@pytest.mark.across
def test_unknown_activation_raises():
    with pytest.raises(ValueError, match="classifier_activation='sofmax'"):
        mobilenet_zoo.reset_classifier(tiny(), 3, "sofmax")
