"""Probabilities get names, the likeliest first."""

import keras
import numpy as np
import pytest

import mobilenet_runtime


def probabilities(classes=1000, **chances):
    values = np.zeros((2, classes), "float32")
    for row, index in enumerate(chances.values()):
        values[row, index] = 0.75
        values[row, (index + 3) % classes] = 0.25
    return values


def test_the_names_are_those_of_imagenet_in_the_order_of_keras_applications():
    """keras.applications has its own list, which is downloaded: these five are known from its documentation."""
    values = probabilities(first=386, second=0)
    (elephant, next_), (tench, _) = mobilenet_runtime.decode_predictions(keras.ops.convert_to_tensor(values), top=2)
    assert elephant == ("n02504458", "African elephant, Loxodonta africana", 0.75)
    assert next_.probability == 0.25
    assert (tench.id, tench.name) == ("n01440764", "tench, Tinca tinca")


def test_one_image_without_a_batch():
    values = probabilities(first=999, second=0)[0]
    found = mobilenet_runtime.decode_predictions(values)
    assert [each.probability for each in found] == [0.75, 0.25, 0, 0, 0]
    assert found[0].name.startswith("toilet tissue")


def test_own_names_and_no_more_than_there_are():
    found = mobilenet_runtime.decode_predictions([[0.25, 0.75]], top=5, class_names=("cat", "dog"))
    assert found == [[("1", "dog", 0.75), ("0", "cat", 0.25)]]


def test_a_class_for_the_background():
    values = probabilities(1001, first=1, second=0)
    (first, _), (second, _) = mobilenet_runtime.decode_predictions(values, top=2)
    assert first.name == "tench, Tinca tinca"
    assert second.name == "background"


@pytest.mark.parametrize(
    "values, options, match",
    [
        (np.zeros((2, 10)), {}, r"\(2, 10\).*1000 class names. Pass your own"),
        (np.zeros((2, 3)), {"class_names": ["a", "b"]}, r"\(2, 3\).*there are 2"),
        (np.zeros((2, 2, 1000)), {}, r"\(2, 2, 1000\)"),
        (np.zeros((2, 1000)), {"top": 0}, "top=0"),
    ],
)
def test_what_does_not_fit_is_refused(values, options, match):
    with pytest.raises(ValueError, match=match):
        mobilenet_runtime.decode_predictions(values, **options)
