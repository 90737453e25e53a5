"""Heat on photographs: it lies where the model looked, whatever was resized, cropped or turned."""

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


def spot(size, place, radius=6):
    """A black photograph with a white square around `place`, (x, y)."""
    pixels = np.zeros((size[1], size[0], 3), "uint8")
    x, y = place
    pixels[y - radius : y + radius + 1, x - radius : x + radius + 1] = 255
    return Image.fromarray(pixels)


def what_the_model_sees(transform, image):
    """Heat that is what the model's input has: `(rows, columns)`, the brighter the hotter."""
    return np.asarray(transform.pixels(image).convert("L"), "float32")


def hottest(found, image, transform):
    """The mean place, (x, y), of what the heat changed."""
    plain = photograph_overlay(image, np.zeros((2, 2)), transform)
    weight = np.abs(np.asarray(found).astype(float) - np.asarray(plain)).sum(-1)
    rows, columns = np.indices(weight.shape)
    return (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("size", SIZES)
def test_a_spot_is_hot_where_it_is(name, size):
    """What is bright at the input's (u, v) is hot at the photograph's (x, y) that was brought there."""
    transform = TRANSFORMS[name]
    for x_share, y_share in ((0.45, 0.55), (0.6, 0.42)):
        place = round(x_share * size[0]), round(y_share * size[1])
        image = spot(size, place)
        found = photograph_overlay(image, what_the_model_sees(transform, image), transform)
        assert found.size == size and found.mode == "RGB"
        cell = max(size) / min(transform.size)
        np.testing.assert_allclose(hottest(found, image, transform), place, atol=0.25 * cell + 0.5)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photograph_that_exif_turns(orientation):
    transform, place = TRANSFORMS["square"], (270, 250)
    upright = spot((640, 427), place)
    turned = Image.open(photographs.rotated_by_exif(upright, orientation))
    assert (turned.size == upright.size) == (orientation == 3)
    found = photograph_overlay(turned, what_the_model_sees(transform, turned), transform)
    assert found.size == upright.size
    np.testing.assert_allclose(hottest(found, upright, transform), place, atol=4)


@pytest.mark.parametrize("mode", photographs.modes())
def test_every_mode_is_drawn_in_color_as_it_is(mode):
    """Where there is no heat the photograph stays, and what the model did not see is dimmed."""
    transform, image = TRANSFORMS["square"], photographs.modes()[mode]
    found = np.asarray(photograph_overlay(image, np.zeros((7, 7)), transform)).astype(float)
    expected = np.asarray(open_image(image)).astype(float)
    # 427 is resized to floor(32 / 0.875) = 36, and 32 of that are taken; 640 becomes 53.
    left, right, top, bottom = (640 * 10 / 53, 640 * 42 / 53, 427 * 2 / 36, 427 * 34 / 36)
    inside = np.zeros((427, 640), bool)
    inside[round(top) + 1 : round(bottom) - 1, round(left) + 1 : round(right) - 1] = True
    np.testing.assert_array_equal(found[inside], expected[inside])
    outside = np.ones((427, 640), bool)
    outside[round(top) - 1 : round(bottom) + 1, round(left) - 1 : round(right) + 1] = False
    np.testing.assert_allclose(found[outside], 0.4 * expected[outside], atol=0.5)


def test_a_very_large_photograph_is_made_smaller():
    transform, place = TRANSFORMS["large"], (2100, 1400)
    image = spot((4096, 2400), place, radius=40)
    found = photograph_overlay(image, what_the_model_sees(transform, image), transform)
    assert found.size == (2048, 1200)
    np.testing.assert_allclose(hottest(found, image, transform), np.array(place) / 2, atol=4)
    small = photograph_overlay(image, np.zeros((2, 2)), transform, longest=300)
    assert small.size == (300, 176)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("size", SIZES)
def test_the_region_is_what_the_input_shows(transform, size):
    """A photograph whose pixels say where they are tells the region's edges."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    left, top, right, bottom = transform.region(*size)
    for values, first, last, length, axis in ((x, left, right, size[0], 1), (y, top, bottom, size[1], 0)):
        seen = np.asarray(transform.pixels(Image.fromarray(values.astype("uint8"))).convert("L")).astype(float)
        profile = seen.mean(1 - axis)
        cells = len(profile)
        centers = (first + (np.arange(cells) + 0.5) * (last - first) / cells - 0.5) * 255 / (length - 1)
        # Resampling is one-sided at the edges of the photograph.
        np.testing.assert_allclose(profile[2:-2], centers[2:-2], atol=1.5)
