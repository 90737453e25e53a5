"""Tiny MobileNetV2 that compiles in seconds, and random data for it."""

import keras
import numpy as np

from mobilenet_common.architecture import Architecture, Conv, Head, Inverted
from mobilenet_v2 import create_mobilenetv2

TINY = Architecture(
    name="tiny",
    stem=Conv(8, stride=2),
    stages=((Inverted(3, 8, 8, stride=2), Inverted(3, 8, 8)), (Inverted(3, 8, 8),)),
    head=Head(Conv(16, 1)),
    minimum_size=8,
)


def tiny(classes=3, size=16, **options):
    keras.utils.set_random_seed(0)
    return create_mobilenetv2(TINY, classes, (size, size, 3), **{"dropout_rate": 0, **options})


def images(count=8, classes=3, size=16, seed=0):
    random = np.random.default_rng(seed)
    labels = np.eye(classes, dtype="float32")[np.arange(count) % classes]
    return random.normal(size=(count, size, size, 3)).astype("float32"), labels


def values(variables):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]
