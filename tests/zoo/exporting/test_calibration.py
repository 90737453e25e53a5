"""Calibration images: arrays of pixels, normalized arrays, image objects and files give the same images."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

import mobilenet_zoo
from mobilenet_common.errors import ExportError, MobileNetWarning
from mobilenet_zoo.exporting.plan import make_plan
from tests import trained
from tests.zoo.exporting.shared import SIZE, tiny, with_facts

pytestmark = pytest.mark.across

PIXELS = trained.crops(20, side=SIZE)
MEAN, STD = np.array((0.4, 0.5, 0.6)), np.array((0.2, 0.25, 0.3))  # as in `with_facts`
NORMALIZED = ((PIXELS / 255 - MEAN) / STD).astype("float32")


def planned_images(calibration, model=None):
    """Return the images that the export uses: `(calibration, checked)`."""
    plan = make_plan(with_facts(tiny()) if model is None else model, quantization="int8", calibration=calibration)
    return plan.images.calibration, plan.images.checked


def assert_planned(calibration, expected=NORMALIZED, model=None):
    for images, expected_images in zip(
        planned_images(calibration, model), planned_images(expected, model), strict=True
    ):
        assert images.dtype == np.float32
        np.testing.assert_allclose(images, expected_images, atol=1e-5)


def encode_png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_integer_arrays_are_pixels(dtype):
    assert_planned(PIXELS.astype(dtype))
    assert_planned((PIXELS.astype(dtype), np.arange(20) % 5))
    assert_planned(list(PIXELS.astype(dtype)))


def test_integer_arrays_stay_pixels_if_the_model_normalizes():
    model = tiny(include_preprocessing=True)
    assert_planned(PIXELS, PIXELS.astype("float32"), model)
    assert planned_images(PIXELS, model)[0].max() > 200


@pytest.mark.parametrize("kind", ["PIL images", "bytes", "open files", "paths"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_image_objects_and_files_are_preprocessed(kind, data_format, tmp_path):
    shape = (SIZE, SIZE, 3) if data_format == "channels_last" else (3, SIZE, SIZE)
    model = with_facts(tiny(input_shape=shape, data_format=data_format))
    pixels = trained.crops(16, side=48)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i:02d}.png")
    calibration = {
        "PIL images": [Image.fromarray(image) for image in pixels],
        "bytes": [encode_png(image) for image in pixels],
        "open files": [io.BytesIO(encode_png(image)) for image in pixels],
        "paths": str(tmp_path),
    }[kind]
    channels_last = mobilenet_zoo.preprocessing(with_facts(tiny()))
    assert_planned(calibration, channels_last(list(pixels)), model)


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (PIXELS.astype("float32"), "The calibration images range from .*look like pixels in 0..255"),
        (PIXELS / 255, "The calibration images range from .*look like pixels in 0..1"),
    ],
)
def test_floats_in_another_range_warn(images, match):
    with pytest.warns(UserWarning, match=match) as record:
        planned_images(images)
    assert record[0].filename == __file__


@pytest.mark.parametrize("with_labels", [True, False])
def test_damaged_files_warn_once_and_labels_stay_aligned(with_labels, tmp_path):
    for i, image in enumerate(PIXELS):
        Image.fromarray(image).save(tmp_path / f"{i:02d}.png")
    paths = sorted(map(str, tmp_path.iterdir()))
    for damaged in (3, 11):
        (tmp_path / f"{damaged:02d}.png").write_bytes(b"damaged")
    calibration = (paths, np.arange(20)) if with_labels else paths
    with pytest.warns(MobileNetWarning, match="2 of 20 calibration images are damaged.*03.png.*11.png") as record:
        images = make_plan(with_facts(tiny()), quantization="int8", calibration=calibration).images
    assert sum(issubclass(warning.category, MobileNetWarning) for warning in record) == 1
    if with_labels:
        assert not {3, 11} & set(images.labels)
        expected = mobilenet_zoo.preprocessing(with_facts(tiny()))(list(PIXELS))
        np.testing.assert_allclose(images.checked, expected[images.labels], atol=1e-5)


def test_wrong_number_of_labels_raises(tmp_path):
    for i, image in enumerate(PIXELS):
        Image.fromarray(image).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "03.png").write_bytes(b"damaged")
    with pytest.raises(ExportError, match=r"calibration has 20 images, but labels of shape \(19,\)"):
        planned_images((str(tmp_path), np.arange(19)))


def test_normalized_floats_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planned_images(NORMALIZED)


@pytest.mark.parametrize("images", [PIXELS.astype("int64") + 1000, PIXELS > 100])
def test_wrong_pixels_raise(images):
    with pytest.raises(ExportError, match="The calibration images of type .* are not allowed"):
        planned_images(images)
