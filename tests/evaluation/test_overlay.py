"""Overlays place heat where the model saw it, whether images were resized, cropped or rotated."""

import numpy as np
import pytest
from PIL import Image

from mobilenet_runtime import Preprocessing
from mobilenet_runtime.evaluation import photograph_overlay
from mobilenet_runtime.images import open_image
from tests import photographs

pytestmark = pytest.mark.across

TRANSFORMS = {
    "square": Preprocessing((32, 32), 0.875, "bicubic", None, None),
    "wide": Preprocessing((48, 96), 0.8, "bilinear", None, None),
    "tall": Preprocessing((96, 64), 1.0, "bilinear", None, None),
    "large": Preprocessing((224, 224), 0.95, "bicubic", None, None),
    "gray": Preprocessing((32, 32), 0.875, "bicubic", None, None, channels=1),
}
SIZES = ((640, 427), (301, 427), (200, 200), (1000, 333))


def spot(size, center, radius=6):
    """Return a black photograph with a white square around `center`, `(x, y)`."""
    pixels = np.zeros((size[1], size[0], 3), "uint8")
    x, y = center
    pixels[y - radius : y + radius + 1, x - radius : x + radius + 1] = 255
    return Image.fromarray(pixels)


def input_brightness(transform, image):
    """Return the brightness of the model's input, `(rows, columns)`, to use as heat."""
    return np.asarray(transform.pixels(image).convert("L"), "float32")


def heat_center(overlay, image, transform):
    """Return the mean position, `(x, y)`, of the pixels that the heat changed."""
    plain = photograph_overlay(image, np.zeros((2, 2)), transform)
    weight = np.abs(np.asarray(overlay).astype(float) - np.asarray(plain)).sum(-1)
    rows, columns = np.indices(weight.shape)
    return (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("size", SIZES)
def test_heat_is_at_the_position_of_the_spot(name, size):
    """A bright pixel of the input heats the position in the photograph that it was resized from."""
    transform = TRANSFORMS[name]
    for x_fraction, y_fraction in ((0.45, 0.55), (0.6, 0.42)):
        center = round(x_fraction * size[0]), round(y_fraction * size[1])
        image = spot(size, center)
        overlay = photograph_overlay(image, input_brightness(transform, image), transform)
        assert overlay.size == size and overlay.mode == "RGB"
        cell = max(size) / min(transform.size)
        np.testing.assert_allclose(heat_center(overlay, image, transform), center, atol=0.25 * cell + 0.5)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_orientation_is_applied(orientation):
    transform, center = TRANSFORMS["square"], (270, 250)
    upright = spot((640, 427), center)
    rotated = Image.open(photographs.rotated_by_exif(upright, orientation))
    assert (rotated.size == upright.size) == (orientation == 3)
    overlay = photograph_overlay(rotated, input_brightness(transform, rotated), transform)
    assert overlay.size == upright.size
    np.testing.assert_allclose(heat_center(overlay, upright, transform), center, atol=4)


@pytest.mark.parametrize("mode", photographs.modes())
def test_every_mode_keeps_its_colors_without_heat(mode):
    """Without heat, the photograph is unchanged where the model saw it, and dimmed elsewhere."""
    transform, image = TRANSFORMS["square"], photographs.modes()[mode]
    actual = np.asarray(photograph_overlay(image, np.zeros((7, 7)), transform)).astype(float)
    expected = np.asarray(open_image(image)).astype(float)
    # The height of 427 becomes floor(32 / 0.875) = 36 and the width of 640 becomes 53; the central 32 × 32 are kept.
    left, right, top, bottom = (640 * 10 / 53, 640 * 42 / 53, 427 * 2 / 36, 427 * 34 / 36)
    inside = np.zeros((427, 640), bool)
    inside[round(top) + 1 : round(bottom) - 1, round(left) + 1 : round(right) - 1] = True
    np.testing.assert_array_equal(actual[inside], expected[inside])
    outside = np.ones((427, 640), bool)
    outside[round(top) - 1 : round(bottom) + 1, round(left) - 1 : round(right) + 1] = False
    np.testing.assert_allclose(actual[outside], 0.4 * expected[outside], atol=0.5)


def test_large_photograph_is_downscaled():
    transform, center = TRANSFORMS["large"], (2100, 1400)
    image = spot((4096, 2400), center, radius=40)
    overlay = photograph_overlay(image, input_brightness(transform, image), transform)
    assert overlay.size == (2048, 1200)
    np.testing.assert_allclose(heat_center(overlay, image, transform), np.array(center) / 2, atol=4)
    small = photograph_overlay(image, np.zeros((2, 2)), transform, longest=300)
    assert small.size == (300, 176)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("size", SIZES)
def test_region_matches_the_model_input(transform, size):
    """The pixels of the photograph encode their position, so that the input shows the region's edges."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    left, top, right, bottom = transform.region(*size)
    for values, first, last, length, axis in ((x, left, right, size[0], 1), (y, top, bottom, size[1], 0)):
        seen = np.asarray(transform.pixels(Image.fromarray(values.astype("uint8"))).convert("L")).astype(float)
        profile = seen.mean(1 - axis)
        cells = len(profile)
        centers = (first + (np.arange(cells) + 0.5) * (last - first) / cells - 0.5) * 255 / (length - 1)
        # Resampling is one-sided at the edges of the photograph.
        np.testing.assert_allclose(profile[2:-2], centers[2:-2], atol=1.5)
