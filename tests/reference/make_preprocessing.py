"""Write preprocessing.npz: what timm's evaluation transform makes of photographs.

    pip install '.[dev,peers]'
    python -m tests.reference.make_preprocessing

The cases are those of tests/runtime/test_transform.py.
"""

from pathlib import Path

import numpy as np

from benchmarks.contenders import import_timm
from tests import photographs

CASES = {  # image, size, crop, interpolation
    "landscape": (photographs.LANDSCAPE, 64, 0.875, "bicubic"),
    "portrait": (photographs.PORTRAIT, 64, 0.875, "bicubic"),
    "bilinear": (photographs.LANDSCAPE, 64, 0.965, "bilinear"),
    "whole": (photographs.PORTRAIT, 63, 1.0, "bicubic"),
    "odd": (photographs.LANDSCAPE, 61, 0.95, "bicubic"),
    "wide": (photographs.LANDSCAPE, (48, 80), 0.9, "bicubic"),
    "tall": (photographs.PORTRAIT, (96, 40), 0.9, "bilinear"),
}


def transform(timm, size, crop, interpolation, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)):
    """timm's evaluation transform."""
    size = (size, size) if isinstance(size, int) else size
    return timm.data.create_transform(
        input_size=(3, *size), crop_pct=crop, interpolation=interpolation, mean=mean, std=std, is_training=False
    )


def pixels(pipeline, image):
    """The image after resizing and cropping, as 8-bit numbers."""
    for step in pipeline.transforms[:2]:
        image = step(image)
    return np.asarray(image)


def main():
    """Write the file."""
    timm = import_timm()
    found = {}
    for name, (image, *options) in CASES.items():
        found[name] = pixels(transform(timm, *options), photographs.photograph(image))
    for mode, image in photographs.modes().items():
        found[f"mode {mode}"] = pixels(transform(timm, 40, 0.875, "bicubic"), image.convert("RGB"))
    found["normalized"] = transform(timm, 32, 0.875, "bicubic")(photographs.photograph()).numpy()
    np.savez_compressed(Path(__file__).parent / "preprocessing.npz", **found)


if __name__ == "__main__":
    main()
