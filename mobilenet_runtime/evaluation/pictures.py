"""Heat on pictures."""

import importlib

import numpy as np

from mobilenet_common.errors import install_hint
from mobilenet_runtime.pictures import pillow

_STRENGTH = 0.65  # of the heat's colour where it is hottest


def overlay(picture, heat):
    """A picture with heat on it: where there is none it stays as it is.

    Args:
        picture: PIL image.
        heat: `(rows, columns)`, at least 0; enlarged to the picture's size, its largest value the hottest.

    Returns:
        A PIL image in RGB, of the picture's size.
    """
    image = pillow("Image")
    heat = np.asarray(heat, "float32")
    heat = heat / max(float(heat.max()), np.finfo("float32").tiny)
    heat = np.asarray(image.fromarray(heat).resize(picture.size, image.Resampling.BILINEAR)).clip(0, 1)
    colours = 255 * matplotlib("colormaps")["inferno"](heat)[..., :3]
    share = _STRENGTH * heat[..., None]
    mixed = (1 - share) * np.asarray(picture.convert("RGB"), "float32") + share * colours
    return image.fromarray(np.rint(mixed).astype("uint8"))


def matplotlib(name):
    """Something of matplotlib, which is imported when first needed."""
    try:
        return getattr(importlib.import_module("matplotlib"), name)
    except ImportError:
        raise ValueError(f"Charts and heat maps need matplotlib: {install_hint('cli')}.") from None
