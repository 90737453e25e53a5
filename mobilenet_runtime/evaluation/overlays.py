"""Heat on images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mobilenet_common.errors import integer
from mobilenet_common.libraries import import_library
from mobilenet_common.types import ImageLike
from mobilenet_runtime.images import open_image, pillow
from mobilenet_runtime.transform import Preprocessing

if TYPE_CHECKING:
    from PIL import Image

_STRENGTH = 0.65  # of the heat's color where it is hottest
_DIMMED = 0.4  # brightness of what the model did not see
_LONGEST = 2048  # pixels of an overlay's longer side


def overlay(image: "Image.Image", heat: np.ndarray, region: Sequence[float] | None = None) -> "Image.Image":
    """Return an image with heat on it: where there is none it stays as it is.

    Args:
        image: PIL image.
        heat: `(rows, columns)`, at least 0; enlarged to the region's size, its largest value the hottest.
        region: `(left, top, right, bottom)` in pixels of the image: what the heat is about. The rest is dimmed. None
            for the whole image.

    Returns:
        A PIL image in RGB, of the image's size.
    """
    pil, region = pillow("Image"), region or (0, 0, *image.size)
    heat = np.asarray(heat, "float32")
    heat = heat / max(float(heat.max()), np.finfo("float32").tiny)
    heat = _placed(heat, image.size, region).clip(0, 1)
    colors = 255 * matplotlib("colormaps")["inferno"](heat)[..., :3]
    share = _STRENGTH * heat[..., None]
    seen = _placed(np.ones((1, 1), "float32"), image.size, region)[..., None]
    pixels = np.asarray(image.convert("RGB"), "float32") * (_DIMMED + (1 - _DIMMED) * seen)
    return pil.fromarray(np.rint((1 - share) * pixels + share * colors).astype("uint8"))


def photograph_overlay(
    image: ImageLike, heat: np.ndarray, transform: Preprocessing, longest: int = _LONGEST
) -> "Image.Image":
    """Return a photograph with heat on the part of it that a model saw.

    Args:
        image: As `Preprocessing` takes it.
        heat: As `overlay` takes it.
        transform: The `Preprocessing` that made the image ready.
        longest: Longer side of the result, in pixels, where the photograph is larger.

    Returns:
        A PIL image in RGB, upright.

    Raises:
        ImageError: The image can't be read.
        ValueError: `longest` is no positive integer.
    """
    longest = integer("longest", longest, 1)
    photograph = open_image(image)
    region = transform.region(*photograph.size)
    scale = longest / max(photograph.size)
    if scale < 1:
        before = photograph.size
        photograph = photograph.resize([max(1, round(scale * n)) for n in before])
        ratios = [now / was for now, was in zip(photograph.size, before, strict=True)]
        region = [edge * ratio for edge, ratio in zip(region, ratios * 2, strict=True)]
    return overlay(photograph, heat, region)


def _placed(values, size, region):
    """Return `values`, an array, stretched over a region of an image of `size`, and 0 around it."""
    pil = pillow("Image")
    left, top, right, bottom = region
    columns, rows = values.shape[1] / (right - left), values.shape[0] / (bottom - top)
    matrix = (columns, 0, -left * columns, 0, rows, -top * rows)  # from a pixel of the image to the array's
    placed = pil.fromarray(values).transform(size, pil.Transform.AFFINE, matrix, pil.Resampling.BILINEAR)
    return np.asarray(placed)


def matplotlib(name):
    """Import matplotlib and return something of it."""
    return getattr(import_library("matplotlib", "cli", "Drawing"), name)
