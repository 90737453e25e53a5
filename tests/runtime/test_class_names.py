"""`decode_predictions` returns class names in order of probability."""

import keras
import numpy as np
import pytest

import mobilenet_runtime


def probabilities(classes=1000, **indices):
    values = np.zeros((2, classes), "float32")
    for row, index in enumerate(indices.values()):
        values[row, index] = 0.75
        values[row, (index + 3) % classes] = 0.25
    return values


def test_default_names_are_imagenet_in_keras_applications_order():
    """keras.applications downloads its list of classes, so these entries are copied from its documentation."""
    values = probabilities(first=386, second=0)
    (elephant, next_), (tench, _) = mobilenet_runtime.decode_predictions(keras.ops.convert_to_tensor(values), top=2)
    assert elephant == ("n02504458", "African elephant, Loxodonta africana", 0.75)
    assert next_.probability == 0.25
    assert (tench.id, tench.name) == ("n01440764", "tench, Tinca tinca")


def test_single_image_without_batch_axis():
    values = probabilities(first=999, second=0)[0]
    predictions = mobilenet_runtime.decode_predictions(values)
    assert [prediction.probability for prediction in predictions] == [0.75, 0.25, 0, 0, 0]
    assert predictions[0].name.startswith("toilet tissue")


def test_custom_names_and_top_larger_than_class_count():
    predictions = mobilenet_runtime.decode_predictions([[0.25, 0.75]], top=5, class_names=("cat", "dog"))
    assert predictions == [[("1", "dog", 0.75), ("0", "cat", 0.25)]]


def test_first_of_1001_classes_is_background():
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
def test_wrong_shapes_and_top_raise_value_error(values, options, match):
    with pytest.raises(ValueError, match=match):
        mobilenet_runtime.decode_predictions(values, **options)
