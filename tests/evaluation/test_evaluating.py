"""Evaluation of exported files, next to NumPy's answers and scikit-learn's figures."""

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
def test_every_format(kind, tmp_path):
    path, examples = made.exported(kind, tmp_path), made.examples()
    found = evaluate(path, examples, batch_size=5, speed=kind == "onnx")
    expected = made.expected(examples.images, kind)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(found.labels, examples.labels)
    np.testing.assert_array_equal(found.indices, np.arange(12))
    assert found.metrics.top1 == accuracy_score(examples.labels, expected.argmax(1))
    assert found.metrics.log_loss == pytest.approx(log_loss(examples.labels, expected, labels=range(5)), rel=1e-4)
    assert found.class_names == made.NAMES and found.model == "tiny"
    assert found.costs["bytes"] > 100 and found.costs["operations"] >= 4
    if kind == "onnx":
        assert found.runtime.startswith("ONNX Runtime")
        assert found.speed.latency_batch == 1
        assert 0 < found.speed.latency_ms < 1000 and found.speed.images_per_second > 0
        assert 10 < found.speed.peak_memory_mb < 2000
        record = json.loads(json.dumps(found.as_dict()))
        assert record["top1"] == found.metrics.top1
        assert record["confusion"] == confusion_matrix(examples.labels, expected.argmax(1), labels=range(5)).tolist()
    else:
        assert found.speed is None


def test_classes_are_found_by_name(tmp_path):
    path, examples = made.exported("onnx", tmp_path), made.examples()
    order = [3, 0, 4, 1, 2]
    turned = Examples(
        examples.images, np.argsort(order)[examples.labels], tuple(made.NAMES[i] for i in order), names=None
    )
    one, other = evaluate(path, examples, speed=False), evaluate(path, turned, speed=False)
    np.testing.assert_array_equal(other.labels, examples.labels)
    assert other.metrics.top1 == one.metrics.top1 and other.class_names == made.NAMES
    few = Examples(examples.images[:2], np.array([0, 1]), ("fern", "rose"))
    np.testing.assert_array_equal(evaluate(path, few, speed=False).labels, [4, 0])
    with pytest.raises(ValueError, match="doesn't know 'tulip', 'moss' among the data's 3 classes. Its own are 'rose'"):
        evaluate(path, Examples(examples.images[:3], np.arange(3), ("rose", "tulip", "moss")), speed=False)


def test_damaged_images_are_listed_and_skipped(tmp_path):
    paths = made.folder(tmp_path / "photos")
    paths[4].write_bytes(b"damaged")
    said = []
    path = made.exported("onnx", tmp_path)
    examples = read_examples(tmp_path / "photos")
    found = evaluate(
        path, examples, batch_size=4, speed=False, progress=lambda count, errors: said.append((count, errors))
    )
    assert [str(paths[4]) in str(error) for error in found.damaged] == [True]
    np.testing.assert_array_equal(found.indices, np.delete(np.arange(12), 4))
    good = [path for i, path in enumerate(paths) if i != 4]
    np.testing.assert_allclose(found.probabilities, made.expected(good), atol=1e-5)
    assert [count for count, _ in said] == [4, 3, 4] and sum(len(errors) for _, errors in said) == 1
    images = [np.full((8, 8, 3), 300.0), *made.images(2)]
    named = Examples(images, np.zeros(3, int), made.NAMES, ["a.npz[0]", "a.npz[1]", "a.npz[2]"])
    (error,) = evaluate(path, named, speed=False).damaged
    assert str(error).startswith("a.npz[0]: ")
    with pytest.raises(ValueError, match=r"None of the 1 images can be read. The first: a.npz\[0\]"):
        evaluate(path, named.subset([0]), speed=False)


def test_bad_input(tmp_path):
    path = made.exported("onnx", tmp_path)
    with pytest.raises(ValueError, match="batch_size=0"):
        evaluate(path, made.examples(), batch_size=0)
    with pytest.raises(ValueError, match="examples are empty"):
        evaluate(path, Examples([], np.zeros(0, int), made.NAMES))
    with pytest.raises(ValueError, match="absent.onnx does not exist"):
        evaluate(tmp_path / "absent.onnx", made.examples())


class TestClasses:
    def test_a_model_without_names_takes_the_datas(self):
        names, numbers = match_classes(("b", "a"), None, 2)
        assert names == ("b", "a") and numbers.tolist() == [0, 1]
        with pytest.raises(ValueError, match="The data has 2 classes, but the model tells 3 apart"):
            match_classes(("b", "a"), None, 3)

    @pytest.mark.parametrize("outputs", [1000, 1001])
    def test_imagenet(self, outputs):
        first = outputs - 1000
        synset, name = imagenet_classes()[7]
        names, numbers = match_classes((synset, imagenet_classes()[0][1]), None, outputs)
        assert numbers.tolist() == [7 + first, first] and names[7 + first] == name
        with pytest.raises(ValueError, match="doesn't know 'crane'"):  # there are two
            match_classes(("crane",), None, outputs)

    def test_names_that_do_not_fit_the_outputs(self):
        with pytest.raises(ValueError, match="names for 2 classes, but 3 outputs"):
            match_classes(("a",), ("a", "b"), 3)


def test_a_folder_with_parts(tmp_path):
    made.folder(tmp_path / "photos" / "train", count=10)
    made.folder(tmp_path / "photos" / "val", count=5)
    whole, part = read_examples(tmp_path / "photos"), read_examples(tmp_path / "photos", "validation")
    assert len(whole) == 15 and len(part) == 5 and whole.class_names == tuple(sorted(made.NAMES))
    assert part.counts.tolist() == [1] * 5
    with pytest.raises(ValueError, match="split='test' is not in .*Its parts: train, validation"):
        read_examples(tmp_path / "photos", "test")
    with pytest.raises(ValueError, match="It is not split"):
        read_examples(tmp_path / "photos" / "train", "test")
    with pytest.raises(ValueError, match="has no class folders with images"):
        read_examples(tmp_path / "photos" / "val" / "oak")
    with pytest.raises(ValueError, match="absent does not exist"):
        read_examples(tmp_path / "absent")


def test_what_the_data_package_gives_is_taken(tmp_path):
    """Evaluation asks for no class: what has the attributes will do."""

    @dataclasses.dataclass
    class Other:
        images: list
        labels: list
        class_names: tuple

        def __len__(self):
            return len(self.images)

        def name_of(self, i):
            return f"image {i}"

    path, examples = made.exported("onnx", tmp_path), made.examples()
    other = Other(examples.images, examples.labels.tolist(), made.NAMES)
    assert evaluate(path, other, speed=False).metrics.top1 == evaluate(path, examples, speed=False).metrics.top1
