"""Reading data from image folders, manifests, arrays and Hugging Face datasets, and errors for wrong data."""

import io
import json
import pickle

import datasets
import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedShuffleSplit

from mobilenet_runtime import ImageError, Preprocessing
from mobilenet_zoo.training.data import Examples, read_data, read_examples, split

pytestmark = pytest.mark.across


def image(shade=0, size=(6, 5)):
    return Image.new("RGB", size, (shade, shade, shade))


def write_folder(folder, counts):
    """Write an image folder from `{"split/class": number of images}`, and return it."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image(i).save(folder / name / f"{i}.png")
    return folder


def shades(examples):
    return [np.asarray(p)[0, 0, 0] for p in map(Image.open, examples.images)]


class TestFolders:
    def test_subfolders_are_classes(self, tmp_path):
        data = read_examples(write_folder(tmp_path, {"dog": 2, "cat": 1, "cat/inner": 1, ".git": 1}))
        assert data.class_names == ("cat", "dog")
        assert data.counts.tolist() == [2, 2]
        assert all(
            name in path for path, name in zip(data.images, np.array(data.class_names)[data.labels], strict=True)
        )
        assert data.name_of(3) == data.images[3] == str(tmp_path / "dog" / "1.png")

    @pytest.mark.parametrize("validation", ["val", "validation", "test"])
    def test_split_folders_are_read(self, tmp_path, validation):
        write_folder(tmp_path, {"train/a": 3, "train/b": 2, f"{validation}/b": 1})
        train, validation_data = read_data(tmp_path)
        assert (train.counts.tolist(), validation_data.counts.tolist()) == ([3, 2], [0, 1])
        assert validation_data.class_names == train.class_names
        assert len(read_examples(tmp_path)) == 6
        assert len(read_examples(tmp_path, "train")) == 5

    def test_class_may_be_named_train(self, tmp_path):
        assert read_examples(write_folder(tmp_path, {"train": 1, "bus": 2})).class_names == ("bus", "train")

    def test_validation_argument_overrides_the_folder(self, tmp_path):
        write_folder(tmp_path / "data", {"train/a": 3, "train/b": 2, "val/b": 1})
        validation = write_folder(tmp_path / "other", {"b": 4})
        assert read_data(tmp_path / "data", validation=validation).validation.labels.tolist() == [1] * 4

    @pytest.mark.parametrize(
        ("counts", "message"),
        [
            ({}, "no class folders"),
            ({"cat": 2}, "one class"),
            ({"cat": 2, "dog": 0}, "without images: dog"),
            ({"train/a": 1, "train/b": 1, "val/c": 1}, "label='c' is not known"),
            ({"val/a": 1, "val/b": 1, "train": 0}, "no class folders|without images"),
        ],
    )
    def test_wrong_folders_raise(self, tmp_path, counts, message):
        with pytest.raises(ValueError, match=message):
            read_data(write_folder(tmp_path, counts))

    def test_missing_and_unknown_sources_raise(self, tmp_path):
        with pytest.raises(ValueError, match="nowhere does not exist"):
            read_data(tmp_path / "nowhere")
        (tmp_path / "data.txt").write_text("")
        with pytest.raises(ValueError, match="extension"):
            read_data(tmp_path / "data.txt")
        with pytest.raises(ValueError, match="data of type int"):
            read_data(3)
        with pytest.raises(ValueError, match="split='holdout'"):
            read_examples(write_folder(tmp_path / "x", {"a": 1, "b": 1}), "holdout")


class TestManifests:
    @pytest.fixture
    def folder(self, tmp_path):
        for i in range(4):
            image(i).save(tmp_path / f"{i}.png")
        return tmp_path

    def test_csv_is_read(self, folder):
        (folder / "m.csv").write_text("label,path\ndog,0.png\ncat,1.png\n\ndog,2.png\n")
        data = read_examples(folder / "m.csv")
        assert (data.class_names, data.labels.tolist(), shades(data)) == (("cat", "dog"), [1, 0, 1], [0, 1, 2])

    def test_jsonl_with_splits_is_read(self, folder):
        rows = [(0, 3, "train"), (1, 10, "train"), (2, 10, "val"), (3, 3, "test")]
        lines = [json.dumps({"path": f"{i}.png", "label": label, "split": part}) for i, label, part in rows]
        (folder / "m.jsonl").write_text("\n".join(lines))
        train, validation = read_data(folder / "m.jsonl")
        assert train.class_names == ("3", "10")  # sorted by number, not alphabetically
        assert (train.labels.tolist(), validation.labels.tolist(), shades(validation)) == ([0, 1], [1], [2])
        assert shades(read_examples(folder / "m.jsonl", "test")) == [3]

    def test_integer_labels_index_the_given_class_names(self, folder):
        (folder / "m.csv").write_text("path,label\n0.png,2\n1.png,cat\n")
        data = read_examples(folder / "m.csv", class_names=("cat", "dog", "emu"))
        assert data.labels.tolist() == [2, 0]
        with pytest.raises(ValueError, match=r"line 2: label 2 is out of range: there are 2 classes"):
            read_examples(folder / "m.csv", class_names=("cat", "dog"))

    @pytest.mark.parametrize(
        ("extension", "text", "message"),
        [
            ("csv", "0.png,cat\n", "line 1: '0.png,cat' is not a header"),
            ("csv", "path,label\n0.png,cat\n1.png\n", "line 3: expected 2 cells \\(path,label\\), got 1"),
            ("csv", "path,label\n0.png,cat\n1.png,\n", "line 3: label is missing"),
            ("csv", "path,label\n,cat\n", "line 2: path must be a non-empty string, got ''"),
            ("csv", "path,label\n0.png,-1\n", "line 2: label -1 is out of range"),
            ("csv", "path,label,split\n0.png,a,train\n1.png,b,\n", "line 3: split is missing"),
            ("csv", "path,label\n0.png,a\n8.png,a\n9.png,b\n", r"2 of 3 images do not exist: .*8.png \(line 3\)"),
            ("csv", "path,label\n", "no images"),
            ("jsonl", '{"path": "0.png", "label": "a"}\n{"path"\n', "line 2: this is not valid JSON"),
            ("jsonl", "[1]\n", "line 1: each line must look like"),
            ("jsonl", '{"path": "0.png", "label": 1.5}\n', "line 1: label 1.5"),
        ],
    )
    def test_wrong_lines_raise(self, folder, extension, text, message):
        (folder / f"m.{extension}").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_data(folder / f"m.{extension}")


class TestArrays:
    X = np.arange(6 * 4 * 5, dtype="uint8").reshape(6, 4, 5)
    Y = np.array([0, 1, 2, 0, 1, 2])

    @pytest.mark.parametrize("keys", [("x", "y"), ("images", "labels")])
    def test_unsplit_arrays_are_read(self, tmp_path, keys):
        np.savez(tmp_path / "d.npz", **dict(zip(keys, (self.X, self.Y[:, None]), strict=True)))
        data = read_examples(tmp_path / "d.npz")
        np.testing.assert_array_equal(data.images[3], self.X[3])
        assert (data.labels.tolist(), data.class_names) == (self.Y.tolist(), ("0", "1", "2"))
        assert data.subset([4, 2]).name_of(0) == "d.npz[4]"

    def test_split_arrays_and_class_names_are_read(self, tmp_path):
        np.savez(
            tmp_path / "d.npz", x_train=self.X, y_train=self.Y, x_test=self.X[:1], y_test=[2], class_names=list("zyx")
        )
        train, validation = read_data(tmp_path / "d.npz")
        assert train.class_names == ("z", "y", "x")
        assert (train.labels.tolist(), validation.labels.tolist()) == (self.Y.tolist(), [2])
        joined = read_examples(tmp_path / "d.npz", class_names=("x", "y", "z"))
        assert joined.labels.tolist() == [2, 1, 0, 2, 1, 0, 0]
        np.testing.assert_array_equal(joined.images[6], self.X[0])
        assert joined.name_of(6) == "d.npz:x_test[0]"

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x": X}, "It must have x and y"),
            ({"x": X, "y": Y[:5]}, r"y has shape \(5,\)"),
            ({"x": X, "y": Y - 1}, r"y\[0\]: label -1 is out of range"),
            ({"x": X, "y": Y, "class_names": ["a", "b"]}, r"y\[2\]: label 2 is out of range: there are 2 classes"),
            ({"x": X / 255, "y": Y}, "pixels must be in 0..255"),
            ({"x": X[..., None].repeat(2, -1), "y": Y}, "not an array of images"),
            ({"x": np.array([None] * 6), "y": Y}, "can't be read"),
            ({"x": X, "y": Y * 0.5}, r"y\[1\]: label 0.5"),
        ],
    )
    def test_wrong_arrays_raise(self, tmp_path, arrays, message):
        np.savez(tmp_path / "d.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            read_data(tmp_path / "d.npz")

    def test_file_that_is_not_an_archive_raises(self, tmp_path):
        (tmp_path / "d.npz").write_bytes(pickle.dumps({"x": 1}))
        with pytest.raises(ValueError, match="can't be read as an .npz"):
            read_data(tmp_path / "d.npz")


class TestHuggingFace:
    @staticmethod
    def dataset(shades, labels, kind=None):
        features = datasets.Features(
            {"photo": datasets.Image(), "label": kind or datasets.ClassLabel(names=["zebra", "ant"])}
        )
        return datasets.Dataset.from_dict({"photo": [image(s) for s in shades], "label": labels}, features=features)

    def test_dataset_dict_is_read(self):
        data = datasets.DatasetDict(train=self.dataset([1, 2, 3], [0, 1, 1]), validation=self.dataset([4], [1]))
        train, validation = read_data(data)
        assert train.class_names == ("zebra", "ant")
        assert (train.labels.tolist(), validation.labels.tolist()) == ([0, 1, 1], [1])
        assert [np.asarray(train.images[i])[0, 0, 0] for i in range(3)] == [1, 2, 3]
        assert validation.name_of(0) == "the dataset[validation][0]"

    def test_saved_dataset_is_read(self, tmp_path):
        self.dataset([1, 2, 3], ["b", "a", "b"], datasets.Value("string")).save_to_disk(tmp_path / "saved")
        data = read_examples(tmp_path / "saved")
        assert (data.class_names, data.labels.tolist()) == (("a", "b"), [1, 0, 1])

    def test_hub_dataset_is_loaded_by_name(self, monkeypatch):
        monkeypatch.setattr(datasets, "load_dataset", {"user/name": self.dataset([1, 2], [0, 1])}.__getitem__)
        assert read_examples("hf:user/name").labels.tolist() == [0, 1]

    def test_wrong_datasets_raise(self):
        with pytest.raises(ValueError, match=r"dataset\[1\]: label -1 is missing or out of range"):
            read_data(self.dataset([1, 2], [0, -1]))
        with pytest.raises(ValueError, match="one Image column.*It has label"):
            read_data(datasets.Dataset.from_dict({"label": [1]}))

    def test_damaged_image_is_named_in_the_error(self):
        png = io.BytesIO()
        image(3, (64, 64)).save(png, "PNG")
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
        stored = [{"bytes": png.getvalue()[:60], "path": None}]
        data = read_examples(datasets.Dataset.from_dict({"image": stored, "label": [0]}, features=features))
        with pytest.raises(ImageError, match=r"the dataset\[0\] can't be read"):
            data.images[0]


class TestExamples:
    def test_validation_classes_are_matched_by_name(self):
        train = Examples([image(), image(1)], np.array([0, 1]), ("a", "b"))
        validation = Examples([image(2)], np.array([0]), ("b",))
        assert read_data(train, validation=validation).validation.labels.tolist() == [1]

    @pytest.mark.parametrize(
        ("labels", "names", "message"),
        [
            ([0, 2], "ab", r"labels\[1\]=2 is out of range"),
            ([0], "ab", "2 images, but 1 labels"),
            ([0, 1], "aa", "twice"),
        ],
    )
    def test_wrong_examples_raise(self, labels, names, message):
        with pytest.raises(ValueError, match=message):
            Examples([image(), image()], np.array(labels), tuple(names))

    def test_images_can_be_preprocessed(self, tmp_path):
        data = read_examples(write_folder(tmp_path, {"a": 1, "b": 2}))
        assert Preprocessing((4, 4), 1.0, "bilinear", None, None)(list(data.images)).shape == (3, 4, 4, 3)


class TestSplitting:
    def data(self, counts):
        labels = np.repeat(np.arange(len(counts)), counts)
        return Examples(list(range(len(labels))), labels, tuple(map(str, range(len(counts)))))

    def test_split_is_stratified(self):
        """Each class has as many validation images as in scikit-learn's split."""
        data = self.data([100, 50, 10])
        _, expected = next(StratifiedShuffleSplit(1, test_size=0.2, random_state=0).split(data.labels, data.labels))
        train, validation = split(data, 0.2, seed=1)
        assert validation.counts.tolist() == np.bincount(data.labels[expected]).tolist() == [20, 10, 2]
        assert sorted([*train.images, *validation.images]) == data.images

    @pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
    def test_small_classes_stay_in_the_training_set(self, fraction):
        train, validation = split(self.data([1, 2, 3]), fraction)
        assert train.counts[0] == 1 and (train.counts > 0).all() and (validation.counts[1:] > 0).all()

    def test_split_depends_only_on_the_seed(self):
        data = self.data([30, 30])
        drawn = [split(data, 0.3, seed).validation.images for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]

    def test_fraction_zero_is_empty_and_one_raises(self):
        assert len(split(self.data([3, 3]), 0).validation) == 0
        with pytest.raises(ValueError, match="validation_fraction=1"):
            read_data(self.data([3, 3]), validation_fraction=1)
