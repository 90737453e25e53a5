"""Pictures come in as timm's evaluation transform makes them, whatever they are stored as."""

import io
import struct
import zlib

import keras
import numpy as np
import pytest
from PIL import Image

from mobilenet_runtime import PictureError, Preprocessing
from mobilenet_runtime.pictures import MOST_PIXELS
from tests import photographs, references
from tests.reference import make_preprocessing

pytestmark = pytest.mark.across

CASES, MODES = make_preprocessing.CASES, photographs.modes()


@pytest.fixture(scope="module")
def theirs():
    """What timm's transform gave."""
    with np.load(references.FOLDER / "preprocessing.npz") as file:
        return dict(file)


def transform(size=32, crop=0.875, interpolation="bicubic"):
    """With the mean and deviation of ImageNet's pixels."""
    size = (size, size) if isinstance(size, int) else size
    return Preprocessing(size, crop, interpolation, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def assert_within_one_grey_level(ours, theirs):
    ours, theirs = np.asarray(ours).astype(int), np.asarray(theirs).astype(int)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1


class TestAgainstTimm:
    @pytest.mark.parametrize("case", CASES)
    def test_resizing_and_cropping(self, case, theirs, tmp_path):
        name, size, crop, interpolation = CASES[case]
        photographs.photograph(name).save(tmp_path / "picture.png")
        found = transform(size, crop, interpolation).pixels(tmp_path / "picture.png")
        assert_within_one_grey_level(found, theirs[case])

    @pytest.mark.parametrize("mode", MODES)
    def test_every_mode(self, mode, theirs):
        assert_within_one_grey_level(transform(40).pixels(MODES[mode]), theirs[f"mode {mode}"])

    def test_normalising(self, theirs):
        found = transform(32)(photographs.photograph())
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, theirs["normalised"].transpose(1, 2, 0), atol=1 / 255 / 0.224 + 1e-5)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pictures_that_say_how_they_are_turned_are_turned_upright(orientation, tmp_path):
    upright = photographs.photograph()
    path = tmp_path / "turned.png"
    path.write_bytes(photographs.rotated_by_exif(upright, orientation).getvalue())
    with Image.open(path) as stored:
        assert (stored.size == upright.size) == (orientation == 3)
    np.testing.assert_array_equal(transform()(path), transform()(upright))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_become_8(format, tmp_path):
    grey = photographs.photograph().convert("L")
    photographs.sixteen_bit(grey).save(tmp_path / "deep", format)
    np.testing.assert_array_equal(transform()(tmp_path / "deep"), transform()(grey))


def test_arrays_are_pictures_too():
    picture = photographs.photograph()
    expected = transform()(picture)
    array = np.asarray(picture)
    np.testing.assert_array_equal(transform()(array), expected)
    np.testing.assert_array_equal(transform()(array.astype("float32")), expected)
    np.testing.assert_array_equal(transform()(keras.ops.convert_to_tensor(array)), expected)
    np.testing.assert_array_equal(transform()(array[..., 1]), transform()(Image.fromarray(array[..., 1])))


def test_several_pictures_make_a_batch():
    landscape, portrait = photographs.photograph(), photographs.photograph(photographs.PORTRAIT)
    batch = transform()([landscape, np.asarray(portrait)])
    assert batch.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(batch[1], transform()(portrait))
    stacked = np.stack([np.asarray(landscape)] * 2)
    np.testing.assert_array_equal(transform()(stacked), np.stack([batch[0]] * 2))


def test_no_pictures():
    with pytest.raises(ValueError, match="no pictures"):
        transform()([])


def png(width, height, data=b""):
    """A PNG's bytes with that size in its header, whatever follows."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


class TestWhatIsNoPicture:
    def refused(self, picture, match):
        with pytest.raises(PictureError, match=match):
            transform()(picture)

    def test_files(self, tmp_path):
        whole = io.BytesIO()
        photographs.photograph().save(whole, "JPEG")
        contents = {
            "empty.jpg": b"",
            "text.png": b"no picture at all",
            "half.jpg": whole.getvalue()[: len(whole.getvalue()) // 2],
            "header.png": png(10, 10)[:20],
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
            self.refused(tmp_path / name, f"{name} can't be read as a picture")
        self.refused(tmp_path, "can't be read as a picture")
        self.refused(tmp_path / "absent.png", "absent.png can't be read as a picture")

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_a_bomb(self, tmp_path):
        side = int(MOST_PIXELS**0.5) + 1
        for name, size in (("bomb", (50_000, 50_000)), ("large", (side, side))):
            path = tmp_path / f"{name}.png"
            path.write_bytes(png(*size, bytes(1 << 20)))
            self.refused(path, "scale it down first")
        self.refused(Image.new("1", (side, side)), "scale it down first")

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((4,)),
            np.zeros((4, 4, 2)),
            np.zeros((0, 4, 3)),
            np.full((4, 4), 256),
            np.full((4, 4), -1),
            np.full((4, 4), np.nan),
            np.array([["a"]]),
        ],
        ids=["vector", "2 channels", "empty", "256", "-1", "nan", "text"],
    )
    def test_arrays(self, array):
        self.refused(array, "no picture|0..255")
