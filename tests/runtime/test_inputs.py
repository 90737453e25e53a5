"""Arrays as model inputs: integers are normalized as pixels, and floats in an unexpected range cause a warning."""

import warnings

import numpy as np
import pytest

import mobilenet_runtime
from mobilenet_runtime import Metadata, Preprocessing
from mobilenet_runtime.inputs import as_model_input
from mobilenet_runtime.measure import measure
from tests.runtime import tiny

pytestmark = pytest.mark.across

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
UNIT = ((0.0,) * 3, (1.0,) * 3)
PIXEL_INPUT = (None, None)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, tiny.SIZE, tiny.SIZE, 3)).astype("uint8")


class Owner:
    """The model that a warning is about; each warning is shown once per owner."""


def transform(scale, data_format="channels_last"):
    return Preprocessing((tiny.SIZE,) * 2, 0.875, "bilinear", *scale, data_format=data_format)


def normalized(pixels, scale):
    """Return normalized pixels, computed with NumPy in float64."""
    return (
        pixels.astype("float64") if scale is PIXEL_INPUT else (pixels / 255 - np.array(scale[0])) / np.array(scale[1])
    )


@pytest.mark.parametrize("scale", [IMAGENET, HALF, UNIT, PIXEL_INPUT])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64"])
def test_integers_are_normalized_as_pixels(scale, dtype):
    images = PIXELS.astype(dtype)
    expected = normalized(PIXELS, scale)
    inputs = as_model_input(images, transform(scale), Owner(), "a model")
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs, expected, rtol=1e-5, atol=1e-6)
    channels_first = as_model_input(
        images.transpose(0, 3, 1, 2), transform(scale, "channels_first"), Owner(), "a model"
    )
    np.testing.assert_allclose(channels_first, expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_floats_are_not_normalized(dtype, recwarn):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    images = normalized(PIXELS, IMAGENET).astype(dtype)
    inputs = as_model_input(images, transform(IMAGENET), Owner(), "a model")
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs, images.astype("float32"))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (np.full((1, 8, 8, 3), 256), "images of type int64 with values from 256 to 256.*pixels in 0..255"),
        (np.full((1, 8, 8, 3), -1), "images of type int64 with values from -1"),
        (np.zeros((1, 8, 8, 3), bool), "images of type bool"),
        (np.zeros((1, 8, 8, 3), complex), "images of type complex128"),
    ],
)
def test_wrong_types_and_integer_ranges_raise_value_error(images, match):
    with pytest.raises(ValueError, match=match):
        as_model_input(images, transform(IMAGENET), Owner(), "a model")


@pytest.mark.parametrize(
    ("scale", "images", "match"),
    [
        (IMAGENET, PIXELS.astype("float32"), "look like pixels in 0..255, but a model takes.*-2.12..2.64.*uint8"),
        (HALF, PIXELS.astype("float32"), "look like pixels in 0..255, but a model takes.*-1..1"),
        (UNIT, PIXELS.astype("float32"), "look like pixels in 0..255, but a model takes.*0..1"),
        (IMAGENET, PIXELS / 255, "look like pixels in 0..1, but a model takes.*-2.12..2.64"),
        (HALF, PIXELS / 255, "look like pixels in 0..1, but a model takes.*-1..1"),
        (HALF, normalized(PIXELS, IMAGENET), "range from -2.1 to 2.64, but a model takes.*-1..1"),
        (UNIT, normalized(PIXELS, HALF), "range from -1 to 1, but a model takes.*0..1"),
        (PIXEL_INPUT, PIXELS / 255, "but a model takes pixels in 0..255: multiply them by 255"),
        (PIXEL_INPUT, normalized(PIXELS, HALF), "and look normalized, but a model takes pixels in 0..255"),
        (PIXEL_INPUT, PIXELS * 100.0, "to 2.55e.04, but a model takes pixels in 0..255"),
        (UNIT, PIXELS / 255, None),
        (IMAGENET, normalized(PIXELS, IMAGENET), None),
        (HALF, normalized(PIXELS, HALF), None),
        (HALF, 1.2 * normalized(PIXELS, HALF), None),
        (IMAGENET, np.zeros((1, 8, 8, 3)), None),
        (PIXEL_INPUT, np.zeros((1, 8, 8, 3)), None),
        (PIXEL_INPUT, PIXELS.astype("float32"), None),
        (PIXEL_INPUT, PIXELS - 20.0, None),
    ],
)
def test_floats_in_wrong_range_warn_once(scale, images, match):
    owner = Owner()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            as_model_input(images, transform(scale), owner, "a model")
    assert len(caught) == (match is not None), [str(warning.message) for warning in caught]
    if match is not None:
        with pytest.warns(UserWarning, match=match) as again:
            as_model_input(images, transform(scale), Owner(), "a model")
        assert again[0].filename == __file__


def test_each_kind_of_problem_warns_once():
    owner = Owner()
    faults = (PIXELS.astype("float32"), PIXELS / 255, np.full((1, 8, 8, 3), np.nan), PIXELS * 100.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for images in (*faults, *faults):
            as_model_input(images, transform(IMAGENET), owner, "a model")
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 4
    for text, part in zip(
        messages, ("in 0..255, but", "in 0..1, but", "NaN or infinite", "2.55e+04, but"), strict=True
    ):
        assert part in text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scale", [IMAGENET, PIXEL_INPUT])
def test_non_finite_values_warn(value, scale):
    images = normalized(PIXELS, scale)
    images[0, 0, :2, 0] = value
    with pytest.warns(UserWarning) as caught:
        inputs = as_model_input(images, transform(scale), Owner(), "a model")
    assert [str(warning.message) for warning in caught] == [
        f"images have 2 NaN or infinite values out of {images.size}: check how they were computed."
    ]
    np.testing.assert_array_equal(inputs, images.astype("float32"))


def embed_metadata(path, scale, **changes):
    """Embed metadata into a tiny file."""
    fields = {"name": "tiny", "class_names": None, "size": (tiny.SIZE,) * 2, "channels": 3, "layout": "NHWC"}
    fields |= {"crop": 0.9, "interpolation": "bilinear", "mean": scale[0], "std": scale[1], "gives": "probabilities"}
    mobilenet_runtime.embed(path, Metadata(**fields | changes))


class TestExportedFiles:
    @pytest.fixture
    def path(self, tmp_path):
        return tiny.write("onnx", tmp_path, outputs=("probabilities",))

    @pytest.mark.parametrize("scale", [IMAGENET, PIXEL_INPUT])
    def test_integers_are_normalized_with_metadata(self, scale, path):
        embed_metadata(path, scale, layout="NCHW")
        expected = tiny.expected(normalized(PIXELS, scale))["probabilities"]
        for probabilities in (
            mobilenet_runtime.load(path)(PIXELS),
            next(iter(measure(path, PIXELS, runs=1)[1].values())),
        ):
            np.testing.assert_allclose(probabilities, expected, atol=2e-4)

    def test_floats_in_wrong_range_warn_once_per_model(self, path):
        embed_metadata(path, HALF, layout="NCHW")
        model = mobilenet_runtime.load(path)
        with pytest.warns(UserWarning, match=f"images .* look like pixels in 0..255, but {path} takes") as caught:
            model(PIXELS.astype("float32"))
            model(PIXELS.astype("float32"))
        assert len(caught) == 1

    def test_integers_without_metadata_warn(self, path):
        model = mobilenet_runtime.load(path)
        with pytest.warns(UserWarning, match="images of type uint8 are passed to .* without normalization because"):
            probabilities = model(PIXELS)
        np.testing.assert_allclose(probabilities, tiny.expected(PIXELS.astype("float64"))["probabilities"], atol=2e-4)
