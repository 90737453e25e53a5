"""Images to calibrate with: arrays of pixels, arrays as the model takes them, and whole images are one thing."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

import mobilenet_zoo
from mobilenet_common.errors import ExportError, MobileNetWarning
from mobilenet_zoo.exporting.plan import make_plan
from tests import trained
from tests.zoo.exporting.shared import SIZE, known, tiny

pytestmark = pytest.mark.across

PIXELS = trained.crops(20, side=SIZE)
MEAN, STD = np.array((0.4, 0.5, 0.6)), np.array((0.2, 0.25, 0.3))  # of `known`
NORMALIZED = ((PIXELS / 255 - MEAN) / STD).astype("float32")


def taken(calibration, model=None):
    """What the model and the file are given, `(calibration, checked)`."""
    plan = make_plan(known(tiny()) if model is None else model, quantization="int8", calibration=calibration)
    return plan.images.calibration, plan.images.checked


def assert_taken(calibration, expected=NORMALIZED, model=None):
    for found, wanted in zip(taken(calibration, model), taken(expected, model), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_integers_are_pixels(dtype):
    assert_taken(PIXELS.astype(dtype))
    assert_taken((PIXELS.astype(dtype), np.arange(20) % 5))
    assert_taken(list(PIXELS.astype(dtype)))


def test_integers_are_pixels_for_a_model_that_normalizes_inside():
    model = tiny(include_preprocessing=True)
    assert_taken(PIXELS, PIXELS.astype("float32"), model)
    assert taken(PIXELS, model)[0].max() > 200


@pytest.mark.parametrize("kind", ["PIL images", "bytes", "open files", "paths"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_whole_images_go_through_the_preprocessing(kind, data_format, tmp_path):
    shape = (SIZE, SIZE, 3) if data_format == "channels_last" else (3, SIZE, SIZE)
    model = known(tiny(input_shape=shape, data_format=data_format))
    pixels = trained.crops(16, side=48)
    for i, pixel in enumerate(pixels):
        Image.fromarray(pixel).save(tmp_path / f"{i:02d}.png")
    given = {
        "PIL images": [Image.fromarray(pixel) for pixel in pixels],
        "bytes": [encoded(pixel) for pixel in pixels],
        "open files": [io.BytesIO(encoded(pixel)) for pixel in pixels],
        "paths": str(tmp_path),
    }[kind]
    channels_last = mobilenet_zoo.preprocessing(known(tiny()))
    assert_taken(given, channels_last(list(pixels)), model)


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (PIXELS.astype("float32"), "The calibration images range from .*look like pixels in 0..255"),
        (PIXELS / 255, "The calibration images range from .*look like pixels in 0..1"),
    ],
)
def test_floats_in_another_range_are_warned_of(images, match):
    with pytest.warns(UserWarning, match=match) as given:
        taken(images)
    assert given[0].filename == __file__


@pytest.mark.parametrize("with_labels", [True, False])
def test_damaged_files_are_named_once_and_labels_stay_with_their_images(with_labels, tmp_path):
    for i, pixel in enumerate(PIXELS):
        Image.fromarray(pixel).save(tmp_path / f"{i:02d}.png")
    paths = sorted(map(str, tmp_path.iterdir()))
    for damaged in (3, 11):
        (tmp_path / f"{damaged:02d}.png").write_bytes(b"damaged")
    calibration = (paths, np.arange(20)) if with_labels else paths
    with pytest.warns(MobileNetWarning, match="2 of 20 calibration images are damaged.*03.png.*11.png") as given:
        images = make_plan(known(tiny()), quantization="int8", calibration=calibration).images
    assert sum(issubclass(warning.category, MobileNetWarning) for warning in given) == 1
    if with_labels:
        assert not {3, 11} & set(images.labels)
        expected = mobilenet_zoo.preprocessing(known(tiny()))(list(PIXELS))
        np.testing.assert_allclose(images.checked, expected[images.labels], atol=1e-5)


def test_labels_must_be_as_many_as_the_files(tmp_path):
    for i, pixel in enumerate(PIXELS):
        Image.fromarray(pixel).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "03.png").write_bytes(b"damaged")
    with pytest.raises(ExportError, match=r"calibration has 20 images and labels of shape \(19,\)"):
        taken((str(tmp_path), np.arange(19)))


def test_floats_as_the_model_takes_them_are_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        taken(NORMALIZED)


@pytest.mark.parametrize("images", [PIXELS.astype("int64") + 1000, PIXELS > 100])
def test_what_is_no_image(images):
    with pytest.raises(ExportError, match="The calibration images of type .* are not allowed"):
        taken(images)
