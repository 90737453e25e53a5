"""Tiny model, images and recipe for training runs that take seconds."""

import numpy as np

from mobilenet_common import Architecture
from mobilenet_common.architecture import Conv, Head, Universal
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.training import Data, Examples, load_recipe

SIZE, CLASSES = 32, ("ant", "bee", "cat")
TINY = Architecture(
    name="tiny",
    stem=Conv(8, stride=2),
    stages=((Universal(3, 3, 8, 16),), (Universal(0, 3, 16, 32, 2),)),
    head=Head(conv=Conv(24, kernel=1)),
)
RECIPE = {
    "name": "tiny",
    "head_epochs": 1,
    "epochs": 2,
    "batch_size": 6,
    "image_size": SIZE,
    "optimizer": {"name": "adamw", "learning_rate": 3e-3, "weight_decay": 0.05, "clip_norm": 1.0},
    "ema": {"momentum": 0.9},
    "mixing": {"mixup": 0.2, "cutmix": 0.0, "probability": 0.5},
    "model": {"drop_path_rate": 0.2},
}
STEPS = 4  # steps per epoch


def model():
    """Build a new model, whose initial weights depend only on the current random seed."""
    return create_mobilenetv4(TINY, len(CLASSES), (SIZE, SIZE, 3), dropout_rate=0.2, drop_path_rate=0.2)


def examples(count):
    """Return noisy images whose brightest color channel gives the class."""
    random = np.random.default_rng(count)
    labels = np.arange(count) % len(CLASSES)
    images = random.integers(0, 120, (count, SIZE, SIZE, 3))
    images[np.arange(count), :, :, labels] += 100
    return Examples(list(images.astype("uint8")), labels, CLASSES, [f"{i}.png" for i in range(count)])


def data():
    """Return 26 training images, which make 4 full batches of 6, and 7 validation images."""
    return Data(examples(26), examples(7))


def recipe(**changes):
    """Return the recipe with changed fields; `__` in a name stands for a dot."""
    return load_recipe(RECIPE, {key.replace("__", "."): value for key, value in changes.items()})
