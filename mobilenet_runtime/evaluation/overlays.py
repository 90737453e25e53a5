"""Draw heatmaps on images."""

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

_STRENGTH = 0.65  # opacity of the heat's color at its maximum
_DIMMED = 0.4  # brightness of the parts that the model did not see
_LONGEST = 2048  # maximum length of an overlay's longer side in pixels


def overlay(image: "Image.Image", heat: np.ndarray, region: Sequence[float] | None = None) -> "Image.Image":
    """Draw a heatmap on an image. Inside the region, the image is unchanged where the heat is 0.

    Args:
        image: PIL image.
        heat: Non-negative array of shape `(rows, columns)`. It is resized to the size of the region, and divided by its
            maximum.
        region: Region `(left, top, right, bottom)` that the heatmap covers, in pixels of the image; the rest is dimmed.
            None for the whole image.

    Returns:
        A PIL image in RGB, with the size of `image`.
    """
    pil, region = pillow("Image"), region or (0, 0, *image.size)
    heat = np.asarray(heat, "float32")
    heat = heat / max(float(heat.max()), np.finfo("float32").tiny)
    heat = _placed(heat, image.size, region).clip(0, 1)
    colors = 255 * matplotlib("colormaps")["inferno"](heat)[..., :3]
    opacity = _STRENGTH * heat[..., None]
    seen = _placed(np.ones((1, 1), "float32"), image.size, region)[..., None]
    pixels = np.asarray(image.convert("RGB"), "float32") * (_DIMMED + (1 - _DIMMED) * seen)
    return pil.fromarray(np.rint((1 - opacity) * pixels + opacity * colors).astype("uint8"))


def photograph_overlay(
    image: ImageLike, heat: np.ndarray, transform: Preprocessing, longest: int = _LONGEST
) -> "Image.Image":
    """Draw a heatmap on the part of a photograph that a model saw.

    Args:
        image: Image in any form that `Preprocessing` accepts.
        heat: Non-negative array of shape `(rows, columns)`, as for `overlay`.
        transform: `Preprocessing` that prepared the image for the model.
        longest: Maximum length of the longer side of the result in pixels. Larger photographs are scaled down.

    Returns:
        An upright PIL image in RGB.

    Raises:
        ImageError: If the image can't be read.
        ValueError: If `longest` is not a positive integer.
    """
    longest = integer("longest", longest, 1)
    photograph = open_image(image)
    region = transform.region(*photograph.size)
    scale = longest / max(photograph.size)
    if scale < 1:
        before = photograph.size
        photograph = photograph.resize([max(1, round(scale * n)) for n in before])
        ratios = [new / old for new, old in zip(photograph.size, before, strict=True)]
        region = [edge * ratio for edge, ratio in zip(region, ratios * 2, strict=True)]
    return overlay(photograph, heat, region)


def _placed(values, size, region):
    """Return an array of the image's `size` with `values` resized to cover `region`, and 0 outside the region."""
    pil = pillow("Image")
    left, top, right, bottom = region
    columns, rows = values.shape[1] / (right - left), values.shape[0] / (bottom - top)
    matrix = (columns, 0, -left * columns, 0, rows, -top * rows)  # maps pixels of the image to the array
    placed = pil.fromarray(values).transform(size, pil.Transform.AFFINE, matrix, pil.Resampling.BILINEAR)
    return np.asarray(placed)


def matplotlib(name):
    """Import matplotlib and return its attribute `name`."""
    return getattr(import_library("matplotlib", "cli", "Drawing"), name)
