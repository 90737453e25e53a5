"""Evaluation of exported files compared with NumPy's predictions and scikit-learn's metrics."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from mobilenet_runtime.class_names import imagenet_classes
from mobilenet_runtime.evaluation import evaluate
from mobilenet_runtime.evaluation.classes import match_classes
from mobilenet_runtime.examples import Examples, read_examples
from tests.evaluation import made
from tests.runtime import tiny

pytestmark = pytest.mark.across


@pytest.mark.parametrize("kind", tiny.FORMATS)
def test_every_format_matches_numpy_and_scikit_learn(kind, tmp_path):
    path, examples = made.exported(kind, tmp_path), made.examples()
    result = evaluate(path, examples, batch_size=5, speed=kind == "onnx")
    expected = made.expected(examples.images, kind)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(result.labels, examples.labels)
    np.testing.assert_array_equal(result.indices, np.arange(12))
    assert result.metrics.top1 == accuracy_score(examples.labels, expected.argmax(1))
    assert result.metrics.log_loss == pytest.approx(log_loss(examples.labels, expected, labels=range(5)), rel=1e-4)
    assert result.class_names == made.NAMES and result.model == "tiny"
    assert result.costs["bytes"] > 100 and result.costs["operations"] >= 4
    if kind == "onnx":
        assert result.runtime.startswith("ONNX Runtime")
        assert result.speed.latency_batch == 1
        assert 0 < result.speed.latency_ms < 1000 and result.speed.images_per_second > 0
        assert 10 < result.speed.peak_memory_mb < 2000
        record = json.loads(json.dumps(result.as_dict()))
        assert record["top1"] == result.metrics.top1
        assert record["confusion"] == confusion_matrix(examples.labels, expected.argmax(1), labels=range(5)).tolist()
    else:
        assert result.speed is None


def test_classes_are_matched_by_name(tmp_path):
    path, examples = made.exported("onnx", tmp_path), made.examples()
    order = [3, 0, 4, 1, 2]
    reordered = Examples(
        examples.images, np.argsort(order)[examples.labels], tuple(made.NAMES[i] for i in order), names=None
    )
    result, reordered_result = evaluate(path, examples, speed=False), evaluate(path, reordered, speed=False)
    np.testing.assert_array_equal(reordered_result.labels, examples.labels)
    assert reordered_result.metrics.top1 == result.metrics.top1 and reordered_result.class_names == made.NAMES
    few = Examples(examples.images[:2], np.array([0, 1]), ("fern", "rose"))
    np.testing.assert_array_equal(evaluate(path, few, speed=False).labels, [4, 0])
    with pytest.raises(ValueError, match="lacks 2 of the data's 3 classes: 'tulip', 'moss'. The model's classes"):
        evaluate(path, Examples(examples.images[:3], np.arange(3), ("rose", "tulip", "moss")), speed=False)


def test_damaged_images_are_listed_and_skipped(tmp_path):
    paths = made.folder(tmp_path / "photos")
    paths[4].write_bytes(b"damaged")
    progress_calls = []
    path = made.exported("onnx", tmp_path)
    examples = read_examples(tmp_path / "photos")
    result = evaluate(
        path, examples, batch_size=4, speed=False, progress=lambda count, errors: progress_calls.append((count, errors))
    )
    assert [str(paths[4]) in str(error) for error in result.damaged] == [True]
    np.testing.assert_array_equal(result.indices, np.delete(np.arange(12), 4))
    readable = [path for i, path in enumerate(paths) if i != 4]
    np.testing.assert_allclose(result.probabilities, made.expected(readable), atol=1e-5)
    assert [count for count, _ in progress_calls] == [4, 3, 4] and sum(len(errors) for _, errors in progress_calls) == 1
    images = [np.full((8, 8, 3), 300.0), *made.images(2)]
    named = Examples(images, np.zeros(3, int), made.NAMES, ["a.npz[0]", "a.npz[1]", "a.npz[2]"])
    (error,) = evaluate(path, named, speed=False).damaged
    assert str(error).startswith("a.npz[0]: ")
    with pytest.raises(ValueError, match=r"None of the 1 images can be read. The first error: a.npz\[0\]"):
        evaluate(path, named.subset([0]), speed=False)


def test_bad_input_raises(tmp_path):
    path = made.exported("onnx", tmp_path)
    with pytest.raises(ValueError, match="batch_size=0"):
        evaluate(path, made.examples(), batch_size=0)
    with pytest.raises(ValueError, match="examples is empty"):
        evaluate(path, Examples([], np.zeros(0, int), made.NAMES))
    with pytest.raises(ValueError, match="absent.onnx does not exist"):
        evaluate(tmp_path / "absent.onnx", made.examples())


class TestClasses:
    def test_model_without_class_names_takes_those_of_the_data(self):
        names, indices = match_classes(("b", "a"), None, 2)
        assert names == ("b", "a") and indices.tolist() == [0, 1]
        with pytest.raises(ValueError, match="The data has 2 classes, but the model has 3 classes"):
            match_classes(("b", "a"), None, 3)

    @pytest.mark.parametrize("outputs", [1000, 1001])
    def test_imagenet_classes_are_matched(self, outputs):
        first = outputs - 1000
        synset, name = imagenet_classes()[7]
        names, indices = match_classes((synset, imagenet_classes()[0][1]), None, outputs)
        assert indices.tolist() == [7 + first, first] and names[7 + first] == name
        with pytest.raises(ValueError, match="classes: 'crane'"):  # ImageNet has two classes with this name
            match_classes(("crane",), None, outputs)

    def test_wrong_number_of_class_names_raises(self):
        with pytest.raises(ValueError, match="2 class names, but 3 outputs"):
            match_classes(("a",), ("a", "b"), 3)


def test_folder_with_splits_is_read(tmp_path):
    made.folder(tmp_path / "photos" / "train", count=10)
    made.folder(tmp_path / "photos" / "val", count=5)
    whole, validation = read_examples(tmp_path / "photos"), read_examples(tmp_path / "photos", "validation")
    assert len(whole) == 15 and len(validation) == 5 and whole.class_names == tuple(sorted(made.NAMES))
    assert validation.counts.tolist() == [1] * 5
    with pytest.raises(ValueError, match="split='test' is not in .*Its splits: train, validation"):
        read_examples(tmp_path / "photos", "test")
    with pytest.raises(ValueError, match="It has no splits"):
        read_examples(tmp_path / "photos" / "train", "test")
    with pytest.raises(ValueError, match="has no class folders with images"):
        read_examples(tmp_path / "photos" / "val" / "oak")
    with pytest.raises(ValueError, match="absent does not exist"):
        read_examples(tmp_path / "absent")


def test_any_object_with_the_attributes_of_examples_is_accepted(tmp_path):
    """Evaluation only requires the attributes of `Examples`, not the class."""

    @dataclasses.dataclass
    class CustomExamples:
        images: list
        labels: list
        class_names: tuple

        def __len__(self):
            return len(self.images)

        def name_of(self, i):
            return f"image {i}"

    path, examples = made.exported("onnx", tmp_path), made.examples()
    custom = CustomExamples(examples.images, examples.labels.tolist(), made.NAMES)
    assert evaluate(path, custom, speed=False).metrics.top1 == evaluate(path, examples, speed=False).metrics.top1
