"""Images come in as timm's evaluation transform makes them, whatever they are stored as."""

import dataclasses
import io
import os
import struct
import tempfile
import threading
import zlib

import keras
import numpy as np
import pytest
from PIL import Image

from mobilenet_runtime import ImageError, Preprocessing
from mobilenet_runtime.images import MOST_PIXELS
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


def assert_within_one_gray_level(ours, theirs):
    ours, theirs = np.asarray(ours).astype(int), np.asarray(theirs).astype(int)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"interpolation": "cubic"}, "interpolation='cubic'.*'bicubic'"),
        ({"interpolation": None}, "interpolation=None"),
        ({"mean": None}, "mean=None and std=.* are not allowed"),
        ({"std": None}, "std=None are not allowed"),
        ({"std": (0.2, 0.2)}, "mean=.* and std=.* are not allowed"),
        ({"mean": 0.5, "std": 0.5}, "mean=0.5 and std=0.5 are not allowed"),
        ({"mean": (), "std": ()}, "are not allowed"),
        ({"mean": (0.5, float("inf"), 0.5)}, "mean=inf"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean=nan"),
        ({"mean": (0.5, 1001, 0.5)}, r"mean=1001 .*\[-1000.0, 1000.0\]"),
        ({"std": (0.2, 0, 0.2)}, r"std=0 .*\(0, 1000.0\]"),
        ({"std": (0.2, -1, 0.2)}, "std=-1"),
        ({"std": (0.2, 1001, 0.2)}, "std=1001"),
    ],
)
def test_wrong_arguments_are_refused(change, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(transform(), **change)


class TestAgainstTimm:
    @pytest.mark.parametrize("case", CASES)
    def test_resizing_and_cropping(self, case, theirs, tmp_path):
        name, size, crop, interpolation = CASES[case]
        photographs.photograph(name).save(tmp_path / "image.png")
        found = transform(size, crop, interpolation).pixels(tmp_path / "image.png")
        assert_within_one_gray_level(found, theirs[case])

    @pytest.mark.parametrize("mode", MODES)
    def test_every_mode(self, mode, theirs):
        assert_within_one_gray_level(transform(40).pixels(MODES[mode]), theirs[f"mode {mode}"])

    def test_normalizing(self, theirs):
        found = transform(32)(photographs.photograph())
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, theirs["normalized"].transpose(1, 2, 0), atol=1 / 255 / 0.224 + 1e-5)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_images_that_say_how_they_are_turned_are_turned_upright(orientation, tmp_path):
    upright = photographs.photograph()
    path = tmp_path / "turned.png"
    path.write_bytes(photographs.rotated_by_exif(upright, orientation).getvalue())
    with Image.open(path) as stored:
        assert (stored.size == upright.size) == (orientation == 3)
    np.testing.assert_array_equal(transform()(path), transform()(upright))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_become_8(format, tmp_path):
    gray = photographs.photograph().convert("L")
    photographs.sixteen_bit(gray).save(tmp_path / "deep", format)
    np.testing.assert_array_equal(transform()(tmp_path / "deep"), transform()(gray))


def test_arrays_are_images_too():
    image = photographs.photograph()
    expected = transform()(image)
    array = np.asarray(image)
    np.testing.assert_array_equal(transform()(array), expected)
    np.testing.assert_array_equal(transform()(array.astype("float32")), expected)
    np.testing.assert_array_equal(transform()(keras.ops.convert_to_tensor(array)), expected)
    np.testing.assert_array_equal(transform()(array[..., 1]), transform()(Image.fromarray(array[..., 1])))


def test_several_images_make_a_batch():
    landscape, portrait = photographs.photograph(), photographs.photograph(photographs.PORTRAIT)
    batch = transform()([landscape, np.asarray(portrait)])
    assert batch.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(batch[1], transform()(portrait))
    stacked = np.stack([np.asarray(landscape)] * 2)
    np.testing.assert_array_equal(transform()(stacked), np.stack([batch[0]] * 2))


class Spool:
    """What a server's file of a request is like: it reads, and has nothing else."""

    def __init__(self, content):
        self.content = content

    def read(self):
        return self.content


class TestContentOfFiles:
    """What a server gets and has no path for; against the same image as a PIL image."""

    @pytest.fixture(scope="class")
    def content(self):
        file = io.BytesIO()
        photographs.photograph().save(file, "PNG")
        return file.getvalue()

    @pytest.fixture(scope="class")
    def expected(self):
        return transform()(photographs.photograph())

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO, Spool])
    def test_bytes_and_objects(self, kind, content, expected):
        np.testing.assert_array_equal(transform()(kind(content)), expected)

    @pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.SpooledTemporaryFile])
    def test_temporary_files(self, make, content, expected):
        with make() as file:
            file.write(content)
            file.seek(0)
            np.testing.assert_array_equal(transform()(file), expected)

    def test_an_open_file_is_left_as_it_was(self, content, expected, tmp_path):
        (tmp_path / "two.bin").write_bytes(b"header" + content)
        with open(tmp_path / "two.bin", "rb") as file:
            file.seek(6)
            for _ in range(2):
                np.testing.assert_array_equal(transform()(file), expected)
                assert (file.tell(), file.closed) == (6, False)

    def test_a_stream_that_can_not_seek(self, content, expected):
        reading, writing = os.pipe()

        def send():
            with open(writing, "wb") as file:
                file.write(content)

        thread = threading.Thread(target=send)
        thread.start()
        with open(reading, "rb") as stream:
            assert not stream.seekable()
            np.testing.assert_array_equal(transform()(stream), expected)
        thread.join()

    def test_in_a_list_with_others(self, content, expected, tmp_path):
        (tmp_path / "image.png").write_bytes(content)
        batch = transform()([content, io.BytesIO(content), tmp_path / "image.png", photographs.photograph()])
        np.testing.assert_array_equal(batch, np.stack([expected] * 4))

    def test_turned_ones_are_turned_upright(self, expected):
        file = photographs.rotated_by_exif(photographs.photograph(), 6)
        np.testing.assert_array_equal(transform()(file.getvalue()), expected)

    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda content, _: b"", "The bytes given are empty"),
            (lambda content, _: b"no image", "The image in the bytes given can't be read as an image"),
            (lambda content, _: content[:500], "The image in the bytes given can't be read.*truncated"),
            (lambda content, _: io.BytesIO(content[:500]), "The file object given can't be read.*truncated"),
            (lambda content, _: io.StringIO("text"), "gives str and not bytes.*'rb'"),
            (lambda content, folder: open(folder / "a.png", encoding="latin1"), "open file .*a.png gives str and not"),
            (lambda content, folder: open(folder / "a.png", "ab"), "open file .*a.png can't be read"),
            (lambda content, _: at_its_end(content), r"empty from its position \d+ on: call seek\(0\) first"),
            (lambda content, _: closed(content), "The file object given can't be read: .*closed"),
            (lambda content, _: Spool(None), "gives NoneType and not bytes"),
            (lambda content, _: np.frombuffer(content, "uint8"), r"array.tobytes\(\)"),
        ],
    )
    def test_what_can_not_be_read(self, make, match, content, tmp_path):
        (tmp_path / "a.png").write_bytes(content)
        given = make(content, tmp_path)
        with pytest.raises(ImageError, match=match):
            transform()(given)
        if hasattr(given, "close"):
            given.close()


def at_its_end(content):
    file = io.BytesIO()
    file.write(content)
    return file


def closed(content):
    file = io.BytesIO(content)
    file.close()
    return file


class TestFloatsUpToOne:
    """They are nearly black where 255 is white."""

    @pytest.mark.parametrize("kind", ["array", "batch", "PIL image", "TIFF", "tensor"])
    def test_a_warning(self, kind, tmp_path):
        values = (np.asarray(photographs.photograph().convert("L")) / 255).astype("float32")
        given = {
            "array": lambda: values,
            "batch": lambda: np.stack([np.stack([values] * 3, -1)] * 2),
            "PIL image": lambda: Image.fromarray(values),
            "TIFF": lambda: Image.fromarray(values).save(tmp_path / "a.tiff") or tmp_path / "a.tiff",
            "tensor": lambda: keras.ops.convert_to_tensor(values),
        }[kind]()
        with pytest.warns(UserWarning, match="at most 1, nearly black, since 255 is white: multiply by 255") as warned:
            transform()(given)
        assert warned[0].filename == __file__

    @pytest.mark.parametrize("pixels", [np.zeros((9, 9)), np.ones((9, 9), "uint8"), np.full((9, 9), 1.5)])
    def test_others_are_pixels(self, pixels, recwarn):
        transform()(pixels)
        assert not recwarn.list

    def test_floats_in_a_pil_image_are_pixels(self):
        gray = photographs.photograph().convert("L")
        floats = Image.fromarray(np.asarray(gray, "float32") + 0.4)
        np.testing.assert_array_equal(transform()(floats), transform()(gray))


def test_no_images():
    with pytest.raises(ValueError, match="no images"):
        transform()([])


def png(width, height, data=b""):
    """A PNG's bytes with that size in its header, whatever follows."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


class TestWhatIsNoImage:
    def refused(self, image, match):
        with pytest.raises(ImageError, match=match):
            transform()(image)

    def test_files(self, tmp_path):
        whole = io.BytesIO()
        photographs.photograph().save(whole, "JPEG")
        contents = {
            "empty.jpg": b"",
            "text.png": b"no image at all",
            "half.jpg": whole.getvalue()[: len(whole.getvalue()) // 2],
            "header.png": png(10, 10)[:20],
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
            self.refused(tmp_path / name, f"{name} can't be read as an image")
        self.refused(tmp_path, "can't be read as an image")
        self.refused(tmp_path / "absent.png", "absent.png can't be read as an image")

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
        self.refused(array, "no image|0..255")
