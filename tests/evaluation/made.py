"""Images, predictions and exported models for the evaluation tests."""

import numpy as np
from PIL import Image

from mobilenet_runtime import embed
from mobilenet_runtime.examples import Examples
from tests.runtime import tiny
from tests.test_cli import metadata

NAMES = ("rose", "lily", "oak", "elm", "fern")


def images(count=12, size=8, seed=5):
    """Return random images that a tiny classifier assigns to several classes."""
    random = np.random.default_rng(seed)
    colors = random.integers(0, 256, (count, 1, 1, 3))
    return list(((colors + random.integers(0, 120, (count, size, size, 3))) // 2 * 1).clip(0, 255).astype("uint8"))


def examples(names=NAMES, count=12, **options):
    """Return examples with arrays as images, whose labels cycle through the classes."""
    return Examples(images(count), np.arange(count) % len(names), tuple(names), **options)


def folder(path, names=NAMES, count=12):
    """Write the images of `images()` to an image folder; return their paths in the order of `read_examples`."""
    for i, pixels in enumerate(images(count)):
        file = path / names[i % len(names)] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return sorted(path.glob("*/*.png"))


def exported(kind, directory, **changes):
    """Write a tiny exported classifier with the classes `NAMES`, and return its path."""
    path = tiny.write(kind, directory, outputs=("probabilities",))
    embed(path, metadata(kind, **changes))
    return path


def expected(inputs, kind="onnx"):
    """Compute the tiny classifier's predictions with NumPy."""
    return tiny.expected(metadata(kind).transform()(list(inputs)))["probabilities"]
