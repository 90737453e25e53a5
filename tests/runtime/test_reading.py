"""Finding the images in folders, and detecting images that the training and validation sets share."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from mobilenet_runtime.examples import Examples, read_data, read_examples
from mobilenet_runtime.examples.duplicates import shared_images
from mobilenet_runtime.reading import find_images, is_ignored

pytestmark = pytest.mark.across

LEFTOVERS = (
    ".ipynb_checkpoints/0-checkpoint.png",
    "._0.png",
    ".hidden.png",
    "Thumbs.db",
    "@eaDir/0.png/SYNOPHOTO_THUMB_M.png",
    "__MACOSX/._0.png",
    "__MACOSX/0.png",
    "$RECYCLE.BIN/1.png",
    "System Volume Information/1.png",
    "lost+found/1.png",
)


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), "uint8")).save(path, "png")
    return path


def relative_paths(folder, paths):
    return [os.path.relpath(path, folder) for path in paths]


@pytest.fixture
def photos(tmp_path):
    """Two classes of three images each, with files that operating systems and tools leave behind in every folder."""
    folder = tmp_path / ".cache" / "photos"  # hidden parent folders don't matter, only names below `photos`
    for number, label in enumerate(("cat", "dog")):
        for i in range(3):
            save(folder / label / "inner" / f"{i}.png", 3 * number + i)
    for subfolder in ("", "cat", "cat/inner", "dog"):
        for leftover in LEFTOVERS:
            save(folder / subfolder / leftover, 0)
    return folder


class TestLeftovers:
    def test_leftovers_are_ignored_in_every_folder(self, photos):
        expected = [f"{label}/inner/{i}.png" for label in ("cat", "dog") for i in range(3)]
        assert relative_paths(photos, find_images([photos])) == expected

    def test_leftovers_are_in_neither_training_nor_validation_set(self, photos):
        data = read_data(photos, validation_fraction=0.34)
        assert data.train.class_names == ("cat", "dog")
        assert (len(data.train), len(data.validation)) == (4, 2)

    def test_paths_passed_explicitly_are_kept(self, photos):
        paths = [photos / "cat" / ".hidden.png", photos / "cat" / "Thumbs.db"]
        assert find_images(paths) == list(map(str, paths))
        assert relative_paths(photos, find_images([photos / "cat" / "@eaDir"])) == [
            "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.png"
        ]

    def test_patterns_skip_leftovers_unless_they_name_them(self, photos):
        assert relative_paths(photos, find_images([f"{photos}/cat/**"])) == [f"cat/inner/{i}.png" for i in range(3)]
        assert relative_paths(photos, find_images([f"{photos}/*/@eaDir/**/*.png"])) == [
            f"{label}/@eaDir/0.png/SYNOPHOTO_THUMB_M.png" for label in ("cat", "dog")
        ]

    @pytest.mark.parametrize("name", ["cat", "__background__", "a.b", "eaDir", "thumbs.db.png", "_", "é"])
    def test_ordinary_names_are_not_ignored(self, name):
        assert not is_ignored(name)


class TestFolders:
    def test_circular_links_are_followed_once(self, photos):
        (photos / "cat" / "circle").symlink_to(photos)
        assert len(find_images([photos])) == 6

    def test_links_are_followed_in_both_training_and_prediction(self, photos, tmp_path):
        photos.rename(tmp_path / "elsewhere")
        photos.mkdir()
        for label in ("cat", "dog"):
            (photos / label).symlink_to(tmp_path / "elsewhere" / label)
        (tmp_path / "more" / "deep").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "more" / "deep" / "4.png")
        (tmp_path / "elsewhere" / "dog" / "more").symlink_to(tmp_path / "more")
        (tmp_path / "more" / "back").symlink_to(tmp_path / "elsewhere" / "dog")
        paths = find_images([photos])
        assert len(paths) == 7 and str(photos / "dog" / "more" / "deep" / "4.png") in paths
        assert sorted(map(str, read_examples(photos).images)) == paths

    def test_link_passed_explicitly_is_followed(self, photos, tmp_path):
        (tmp_path / "link").symlink_to(photos / "cat")
        assert len(find_images([tmp_path / "link"])) == 3

    def test_unreadable_folder_raises_value_error(self, photos, monkeypatch):
        scan = os.scandir

        def scan_all_but_dog(path):
            if str(path).endswith("dog"):
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", scan_all_but_dog)
        with pytest.raises(ValueError, match="photos/dog can't be read: Permission denied"):
            find_images([photos])


def examples(images):
    return Examples(images, np.zeros(len(images), "int64"), ("a",))


class TestSharedImages:
    def test_copies_are_counted_by_content(self, tmp_path):
        train = [save(tmp_path / "train" / f"{i}.png", i) for i in range(5)]
        validation = [save(tmp_path / "val" / f"{i}.png", 10 + i) for i in range(3)]
        assert shared_images(examples(train), examples(validation)) is None
        assert len({path.stat().st_size for path in train + validation}) < 8, "some files differ only in their content"
        copies = [save(tmp_path / "val" / f"copy{i}.png", i) for i in (4, 1)]
        message = shared_images(examples(train), examples([*validation, *copies, train[2]]))
        assert message.startswith(f"3 of 6 validation images are also in the training set, for example {copies[0]}")
        assert str(train[4]) in message

    def test_files_that_differ_only_at_the_end_are_not_copies(self, tmp_path):
        for name, end in (("a", b"1"), ("b", b"2")):
            (tmp_path / name).write_bytes(bytes(9000) + end)
        assert shared_images(examples([tmp_path / "a"]), examples([tmp_path / "b"])) is None

    def test_only_files_of_equal_size_are_read(self, tmp_path, monkeypatch):
        from mobilenet_runtime.examples import duplicates

        paths = [tmp_path / str(i) for i in range(6)]
        for i, path in enumerate(paths):
            path.write_bytes(os.urandom(100 + i % 5))
        read_paths = []
        monkeypatch.setattr(duplicates, "_read", lambda path, how: read_paths.append(path))
        shared_images(examples(paths[:5]), examples(paths[5:]))
        assert sorted(read_paths) == [paths[0], paths[5]]

    def test_equal_arrays_are_counted(self):
        images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), "uint8")
        assert shared_images(examples(images[:10]), examples(images[10:])) is None
        assert shared_images(examples(images[:10]), examples(images[8:])).startswith("2 of 12 validation images")

    def test_unusual_arrays(self):
        """Arrays that aren't images are skipped; strided views and long rows are compared like other arrays."""
        row = np.arange(4096, dtype="uint8").reshape(1, 4096)
        odd = [np.uint8(3)[()] * np.ones((), "uint8"), np.zeros((0, 8, 3), "uint8"), np.array([object()], object)]
        for image in odd:
            assert shared_images(examples([image]), examples([image])) is None
        message = shared_images(examples([row[:, ::-2], *odd]), examples([row[:, ::-2].copy(), row[:, ::2]]))
        assert message.startswith("1 of 2 validation images")

    def test_missing_files_and_pil_images_are_skipped(self, tmp_path):
        absent = tmp_path / "absent.png"
        assert shared_images(examples([absent]), examples([absent])) is None
        image = Image.new("RGB", (3, 3))
        assert shared_images(examples([image]), examples([image])) is None

    def test_large_set_is_sampled(self):
        images = np.zeros((3000, 1, 1), "uint8")
        assert shared_images(examples(images[:1]), examples(images)).startswith("2000 of 2000 compared validation")

    def test_read_data_warns_once(self, photos):
        for i in range(2):
            save(photos / "dog" / f"again{i}.png", 0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read_data(photos, validation=photos)
        (warning,) = caught
        assert str(warning.message).startswith("8 of 8 validation images are also in the training set")
        assert warning.filename == __file__
