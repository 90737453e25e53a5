"""Write preprocessing.npz: outputs of timm's evaluation transform for photographs.

    pip install '.[dev,peers]'
    python -m tests.reference.make_preprocessing

tests/runtime/test_transform.py uses the cases below.
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
    """Return timm's evaluation transform."""
    size = (size, size) if isinstance(size, int) else size
    return timm.data.create_transform(
        input_size=(3, *size), crop_pct=crop, interpolation=interpolation, mean=mean, std=std, is_training=False
    )


def pixels(pipeline, image):
    """Return the image after resizing and cropping, as uint8 values."""
    for step in pipeline.transforms[:2]:
        image = step(image)
    return np.asarray(image)


def main():
    """Compute and write all outputs."""
    timm = import_timm()
    arrays = {}
    for name, (image, *options) in CASES.items():
        arrays[name] = pixels(transform(timm, *options), photographs.photograph(image))
    for mode, image in photographs.modes().items():
        arrays[f"mode {mode}"] = pixels(transform(timm, 40, 0.875, "bicubic"), image.convert("RGB"))
    arrays["normalized"] = transform(timm, 32, 0.875, "bicubic")(photographs.photograph()).numpy()
    np.savez_compressed(Path(__file__).parent / "preprocessing.npz", **arrays)


if __name__ == "__main__":
    main()
