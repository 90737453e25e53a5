"""Preprocessing matches timm's evaluation transform for all image types and file formats."""

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
def timm_outputs():
    """Outputs of timm's transform."""
    with np.load(references.FOLDER / "preprocessing.npz") as file:
        return dict(file)


def transform(size=32, crop=0.875, interpolation="bicubic"):
    """Return preprocessing with ImageNet's mean and standard deviation."""
    size = (size, size) if isinstance(size, int) else size
    return Preprocessing(size, crop, interpolation, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def assert_within_one_gray_level(actual, expected):
    actual, expected = np.asarray(actual).astype(int), np.asarray(expected).astype(int)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1


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
def test_wrong_arguments_raise_value_error(change, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(transform(), **change)


class TestAgainstTimm:
    @pytest.mark.parametrize("case", CASES)
    def test_resizing_and_cropping_match_timm(self, case, timm_outputs, tmp_path):
        name, size, crop, interpolation = CASES[case]
        photographs.photograph(name).save(tmp_path / "image.png")
        pixels = transform(size, crop, interpolation).pixels(tmp_path / "image.png")
        assert_within_one_gray_level(pixels, timm_outputs[case])

    @pytest.mark.parametrize("mode", MODES)
    def test_all_pil_modes_match_timm(self, mode, timm_outputs):
        assert_within_one_gray_level(transform(40).pixels(MODES[mode]), timm_outputs[f"mode {mode}"])

    def test_normalization_matches_timm(self, timm_outputs):
        pixels = transform(32)(photographs.photograph())
        assert pixels.dtype == np.float32
        np.testing.assert_allclose(pixels, timm_outputs["normalized"].transpose(1, 2, 0), atol=1 / 255 / 0.224 + 1e-5)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_orientation_is_applied(orientation, tmp_path):
    upright = photographs.photograph()
    path = tmp_path / "turned.png"
    path.write_bytes(photographs.rotated_by_exif(upright, orientation).getvalue())
    with Image.open(path) as stored:
        assert (stored.size == upright.size) == (orientation == 3)
    np.testing.assert_array_equal(transform()(path), transform()(upright))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_images_are_converted_to_8_bits(format, tmp_path):
    gray = photographs.photograph().convert("L")
    photographs.sixteen_bit(gray).save(tmp_path / "deep", format)
    np.testing.assert_array_equal(transform()(tmp_path / "deep"), transform()(gray))


def test_arrays_and_tensors_match_pil_image():
    image = photographs.photograph()
    expected = transform()(image)
    array = np.asarray(image)
    np.testing.assert_array_equal(transform()(array), expected)
    np.testing.assert_array_equal(transform()(array.astype("float32")), expected)
    np.testing.assert_array_equal(transform()(keras.ops.convert_to_tensor(array)), expected)
    np.testing.assert_array_equal(transform()(array[..., 1]), transform()(Image.fromarray(array[..., 1])))


def test_list_of_images_returns_batch():
    landscape, portrait = photographs.photograph(), photographs.photograph(photographs.PORTRAIT)
    batch = transform()([landscape, np.asarray(portrait)])
    assert batch.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(batch[1], transform()(portrait))
    stacked = np.stack([np.asarray(landscape)] * 2)
    np.testing.assert_array_equal(transform()(stacked), np.stack([batch[0]] * 2))


class Spool:
    """A file object that has nothing but `read`, like the uploads of some web servers."""

    def __init__(self, content):
        self.content = content

    def read(self):
        return self.content


class TestContentOfFiles:
    """Bytes and file objects give the same result as the PIL image."""

    @pytest.fixture(scope="class")
    def content(self):
        file = io.BytesIO()
        photographs.photograph().save(file, "PNG")
        return file.getvalue()

    @pytest.fixture(scope="class")
    def expected(self):
        return transform()(photographs.photograph())

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO, Spool])
    def test_bytes_and_file_objects(self, kind, content, expected):
        np.testing.assert_array_equal(transform()(kind(content)), expected)

    @pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.SpooledTemporaryFile])
    def test_temporary_files(self, make, content, expected):
        with make() as file:
            file.write(content)
            file.seek(0)
            np.testing.assert_array_equal(transform()(file), expected)

    def test_open_file_keeps_its_position(self, content, expected, tmp_path):
        (tmp_path / "two.bin").write_bytes(b"header" + content)
        with open(tmp_path / "two.bin", "rb") as file:
            file.seek(6)
            for _ in range(2):
                np.testing.assert_array_equal(transform()(file), expected)
                assert (file.tell(), file.closed) == (6, False)

    def test_stream_that_is_not_seekable(self, content, expected):
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

    def test_list_may_mix_types(self, content, expected, tmp_path):
        (tmp_path / "image.png").write_bytes(content)
        batch = transform()([content, io.BytesIO(content), tmp_path / "image.png", photographs.photograph()])
        np.testing.assert_array_equal(batch, np.stack([expected] * 4))

    def test_exif_orientation_is_applied_to_bytes(self, expected):
        file = photographs.rotated_by_exif(photographs.photograph(), 6)
        np.testing.assert_array_equal(transform()(file.getvalue()), expected)

    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda content, _: b"", "The image bytes are empty"),
            (lambda content, _: b"no image", "The image in the given bytes can't be read as an image"),
            (lambda content, _: content[:500], "The image in the given bytes can't be read.*truncated"),
            (lambda content, _: io.BytesIO(content[:500]), "The given file object can't be read.*truncated"),
            (lambda content, _: io.StringIO("text"), "returns str instead of bytes.*'rb'"),
            (lambda content, folder: open(folder / "a.png", encoding="latin1"), "file .*a.png returns str instead"),
            (lambda content, folder: open(folder / "a.png", "ab"), "open file .*a.png can't be read"),
            (lambda content, _: at_end(content), r"no data after position \d+: call seek\(0\) first"),
            (lambda content, _: closed(content), "The given file object can't be read: .*closed"),
            (lambda content, _: Spool(None), "returns NoneType instead of bytes"),
            (lambda content, _: np.frombuffer(content, "uint8"), r"array.tobytes\(\)"),
        ],
    )
    def test_unreadable_content_raises_image_error(self, make, match, content, tmp_path):
        (tmp_path / "a.png").write_bytes(content)
        image = make(content, tmp_path)
        with pytest.raises(ImageError, match=match):
            transform()(image)
        if hasattr(image, "close"):
            image.close()


def at_end(content):
    file = io.BytesIO()
    file.write(content)
    return file


def closed(content):
    file = io.BytesIO(content)
    file.close()
    return file


class TestFloatsUpToOne:
    """Floats of at most 1 are nearly black images if 255 is white."""

    @pytest.mark.parametrize("kind", ["array", "batch", "PIL image", "TIFF", "tensor"])
    def test_floats_up_to_one_warn(self, kind, tmp_path):
        values = (np.asarray(photographs.photograph().convert("L")) / 255).astype("float32")
        image = {
            "array": lambda: values,
            "batch": lambda: np.stack([np.stack([values] * 3, -1)] * 2),
            "PIL image": lambda: Image.fromarray(values),
            "TIFF": lambda: Image.fromarray(values).save(tmp_path / "a.tiff") or tmp_path / "a.tiff",
            "tensor": lambda: keras.ops.convert_to_tensor(values),
        }[kind]()
        with pytest.warns(UserWarning, match="at most 1, which is nearly black .*: multiply them by 255") as caught:
            transform()(image)
        assert caught[0].filename == __file__

    @pytest.mark.parametrize("pixels", [np.zeros((9, 9)), np.ones((9, 9), "uint8"), np.full((9, 9), 1.5)])
    def test_other_arrays_do_not_warn(self, pixels, recwarn):
        transform()(pixels)
        assert not recwarn.list

    def test_floats_in_pil_image_are_pixels(self):
        gray = photographs.photograph().convert("L")
        floats = Image.fromarray(np.asarray(gray, "float32") + 0.4)
        np.testing.assert_array_equal(transform()(floats), transform()(gray))


def test_empty_list_raises_value_error():
    with pytest.raises(ValueError, match="no images"):
        transform()([])


def png(width, height, data=b""):
    """Return a PNG file with this size in its header; `data` needn't match it."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


class TestInvalidImages:
    def check_error(self, image, match):
        with pytest.raises(ImageError, match=match):
            transform()(image)

    def test_files_that_are_not_images_raise_image_error(self, tmp_path):
        jpeg = io.BytesIO()
        photographs.photograph().save(jpeg, "JPEG")
        contents = {
            "empty.jpg": b"",
            "text.png": b"no image at all",
            "half.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
            "header.png": png(10, 10)[:20],
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
            self.check_error(tmp_path / name, f"{name} can't be read as an image")
        self.check_error(tmp_path, "can't be read as an image")
        self.check_error(tmp_path / "absent.png", "absent.png can't be read as an image")

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_too_large_images_raise_image_error(self, tmp_path):
        side = int(MOST_PIXELS**0.5) + 1
        for name, size in (("bomb", (50_000, 50_000)), ("large", (side, side))):
            path = tmp_path / f"{name}.png"
            path.write_bytes(png(*size, bytes(1 << 20)))
            self.check_error(path, "scale it down first")
        self.check_error(Image.new("1", (side, side)), "scale it down first")

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
    def test_arrays_that_are_not_images_raise_image_error(self, array):
        self.check_error(array, "no image|0..255")
