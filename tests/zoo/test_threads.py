"""Keras models, explanations and images that several threads use at once."""

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


def test_a_classifier_answers_each_thread(model):
    classifier = KerasClassifier(model)
    found = in_threads(4, lambda i: [classifier.predict(images(i)) for _ in range(4)])
    for i, several in enumerate(found):
        for values in several:
            np.testing.assert_allclose(values, classifier.predict(images(i)), rtol=1e-4, atol=1e-6)


def test_explanations_at_once_give_what_they_give_alone(model):
    alone = [grad_cam(model, images(i), [i, i]) for i in range(3)]
    found = in_threads(3, lambda i: [grad_cam(model, images(i), [i, i]) for _ in range(2)])
    for expected, several in zip(alone, found, strict=True):
        for maps, logits in several:
            np.testing.assert_allclose(logits, expected[1], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(maps, expected[0], rtol=1e-3, atol=1e-6 + 1e-3 * expected[0].max())


def test_models_that_share_layers_have_one_lock(model):
    image = keras.Input((SIZE, SIZE, 3))
    around = keras.Model(image, model(image))
    other = create_mobilenetv1("0.25", num_classes=4, input_shape=(SIZE, SIZE, 3))
    assert lock_of(around) is lock_of(model) is lock_of(mobilenet_zoo.reset_classifier(model, 3))
    assert lock_of(other) is not lock_of(model)
    alone = [grad_cam(one, images(i), [i, i]) for i, one in enumerate((model, around))]
    found = in_threads(2, lambda i: [grad_cam((model, around)[i], images(i), [i, i]) for _ in range(3)])
    for expected, several in zip(alone, found, strict=True):
        for maps, logits in several:
            np.testing.assert_allclose(logits, expected[1], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(maps, expected[0], rtol=1e-3, atol=1e-6 + 1e-3 * expected[0].max())


def test_another_thread_gets_probabilities_while_one_explains(model, monkeypatch):
    from mobilenet_zoo.evaluation import gradcam

    last, seen = model.layers[-1], []
    activation = last.activation

    def meanwhile(gradients):
        def run(*args):
            inside = threading.Thread(target=lambda: seen.append(convert_to_numpy(model(images(1)))))
            if seen == []:
                inside.start()
                inside.join()
            return gradients(*args)

        return run

    monkeypatch.setattr(
        gradcam, "_GRADIENTS", {name: meanwhile(gradients) for name, gradients in gradcam._GRADIENTS.items()}
    )
    _, logits = grad_cam(model, images(0))
    np.testing.assert_allclose(seen[0].sum(-1), 1, atol=1e-5, err_msg="the other thread's are probabilities")
    assert np.abs(logits.sum(-1) - 1).min() > 1e-3, "those that are explained are logits"
    assert last.activation is activation


@pytest.mark.across
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("read", ["whole", "crop"])
def test_one_opened_image_in_several_threads(kind, read):
    def opened():
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6
        pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), "uint8")
        Image.fromarray(pixels).save(file, kind, exif=exif)
        return Image.open(file)

    def pixels(image):
        if read == "whole":
            return np.asarray(open_image(image))
        return np.asarray(open_crop(image, "image", 3, (64, 64), "bilinear", lambda w, h: (10, 10, w - 10, h - 20)))

    expected = pixels(opened())
    for _ in range(15):
        image = opened()
        for found in in_threads(4, lambda i, image=image: pixels(image)):
            np.testing.assert_array_equal(found, expected)
