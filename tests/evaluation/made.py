"""Answers and images that the tests of evaluation are about."""

import numpy as np
from PIL import Image

from mobilenet_runtime import embed
from mobilenet_runtime.examples import Examples
from tests.runtime import tiny
from tests.test_cli import metadata

NAMES = ("rose", "lily", "oak", "elm", "fern")


def images(count=12, size=8, seed=5):
    """Pixels that differ enough for a tiny classifier to see several classes."""
    random = np.random.default_rng(seed)
    colors = random.integers(0, 256, (count, 1, 1, 3))
    return list(((colors + random.integers(0, 120, (count, size, size, 3))) // 2 * 1).clip(0, 255).astype("uint8"))


def examples(names=NAMES, count=12, **options):
    """Arrays whose labels go through the classes by turns."""
    return Examples(images(count), np.arange(count) % len(names), tuple(names), **options)


def folder(path, names=NAMES, count=12):
    """The same as files in class folders; returns the paths in the order of `read_examples`."""
    for i, pixels in enumerate(images(count)):
        place = path / names[i % len(names)] / f"{i:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    return sorted(path.glob("*/*.png"))


def exported(kind, place, **changes):
    """A tiny exported classifier of these classes."""
    path = tiny.write(kind, place, outputs=("probabilities",))
    embed(path, metadata(kind, **changes))
    return path


def expected(given, kind="onnx"):
    """The tiny classifier's predictions, by NumPy."""
    return tiny.expected(metadata(kind).transform()(list(given)))["probabilities"]
