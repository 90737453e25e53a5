"""Keras models, Grad-CAM and images that several threads use at once."""

import io
import threading

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy
from PIL import Image

import mobilenet_zoo
from mobilenet_runtime.images import open_image
from mobilenet_v1 import create_mobilenetv1
from mobilenet_zoo.evaluation import KerasClassifier, grad_cam
from mobilenet_zoo.locks import lock_of
from mobilenet_zoo.training.data.decoding import open_crop
from tests.runtime.test_threads import in_threads

SIZE = 32


@pytest.fixture(scope="module")
def model():
    return create_mobilenetv1("0.25", num_classes=4, input_shape=(SIZE, SIZE, 3))


def images(thread):
    return np.random.default_rng(thread).normal(size=(2, SIZE, SIZE, 3)).astype("float32")


def test_classifier_predicts_in_several_threads(model):
    classifier = KerasClassifier(model)
    results = in_threads(4, lambda i: [classifier.predict(images(i)) for _ in range(4)])
    for i, predictions in enumerate(results):
        for values in predictions:
            np.testing.assert_allclose(values, classifier.predict(images(i)), rtol=1e-4, atol=1e-6)


def test_grad_cam_in_threads_equals_sequential_calls(model):
    sequential = [grad_cam(model, images(i), [i, i]) for i in range(3)]
    results = in_threads(3, lambda i: [grad_cam(model, images(i), [i, i]) for _ in range(2)])
    for expected, explanations in zip(sequential, results, strict=True):
        for maps, logits in explanations:
            np.testing.assert_allclose(logits, expected[1], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(maps, expected[0], rtol=1e-3, atol=1e-6 + 1e-3 * expected[0].max())


def test_models_that_share_layers_share_a_lock(model):
    image = keras.Input((SIZE, SIZE, 3))
    wrapper = keras.Model(image, model(image))
    other = create_mobilenetv1("0.25", num_classes=4, input_shape=(SIZE, SIZE, 3))
    assert lock_of(wrapper) is lock_of(model) is lock_of(mobilenet_zoo.reset_classifier(model, 3))
    assert lock_of(other) is not lock_of(model)
    sequential = [grad_cam(candidate, images(i), [i, i]) for i, candidate in enumerate((model, wrapper))]
    results = in_threads(2, lambda i: [grad_cam((model, wrapper)[i], images(i), [i, i]) for _ in range(3)])
    for expected, explanations in zip(sequential, results, strict=True):
        for maps, logits in explanations:
            np.testing.assert_allclose(logits, expected[1], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(maps, expected[0], rtol=1e-3, atol=1e-6 + 1e-3 * expected[0].max())


def test_predictions_during_grad_cam_are_probabilities(model, monkeypatch):
    from mobilenet_zoo.evaluation import gradcam

    last, predictions = model.layers[-1], []
    activation = last.activation

    def predict_meanwhile(gradients):
        def run(*args):
            thread = threading.Thread(target=lambda: predictions.append(convert_to_numpy(model(images(1)))))
            if predictions == []:
                thread.start()
                thread.join()
            return gradients(*args)

        return run

    monkeypatch.setattr(
        gradcam, "_GRADIENTS", {name: predict_meanwhile(gradients) for name, gradients in gradcam._GRADIENTS.items()}
    )
    _, logits = grad_cam(model, images(0))
    np.testing.assert_allclose(predictions[0].sum(-1), 1, atol=1e-5, err_msg="the other thread must get probabilities")
    assert np.abs(logits.sum(-1) - 1).min() > 1e-3, "grad_cam must return logits"
    assert last.activation is activation


@pytest.mark.across
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("read", ["whole", "crop"])
def test_opened_image_can_be_read_in_several_threads(kind, read):
    def make_image():
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6
        pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), "uint8")
        Image.fromarray(pixels).save(file, kind, exif=exif)
        return Image.open(file)

    def pixels(image):
        if read == "whole":
            return np.asarray(open_image(image))
        return np.asarray(open_crop(image, "image", 3, (64, 64), "bilinear", lambda w, h: (10, 10, w - 10, h - 20)))

    expected = pixels(make_image())
    for _ in range(15):
        image = make_image()
        for result in in_threads(4, lambda i, image=image: pixels(image)):
            np.testing.assert_array_equal(result, expected)
