"""Helpers for tests of created models: narrow models, random images and comparisons."""

import numpy as np
import pytest
from keras import ops

from mobilenet_common.architecture import (
    Architecture,
    Attention,
    ChannelAttend,
    Conv,
    Dense,
    Excite,
    Fused,
    Head,
    Inverted,
    Separable,
    Universal,
)
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4

# One variant of each generation, and one of each of V4's three families. Together they have every kind of block.
GENERATIONS = {
    "v1": (create_mobilenetv1, "1.0"),
    "v2": (create_mobilenetv2, "1.0"),
    "v3": (create_mobilenetv3, "small"),
    "v4": (create_mobilenetv4, "conv_small"),
    "v4_hybrid": (create_mobilenetv4, "hybrid_medium"),
    "v4_compact": (create_mobilenetv4, "compact_nano"),
}
SIZE = 32
WIDTH = 0.1

each_generation = pytest.mark.parametrize("generation", GENERATIONS)

# Every kind of row once or twice, for tests that run a model and do not depend on the variant.
TINY = Architecture(
    name="tiny",
    stem=Conv(8, stride=2),
    stages=(
        (Separable(8), Excite(4), ChannelAttend(2)),
        (Inverted(3, 16, 8, 0.25, stride=2), Inverted(3, 16, 8, 0.25), Fused(3, 16, 8)),
        (Universal(3, 3, 16, 16, 2), Attention(16, 2, 4, kv_kernel=3, kv_stride=2), Universal(0, 3, 32, 16)),
    ),
    head=Head(Conv(24, 1), Dense(32)),
)


def create(generation, num_classes=4, input_shape=(SIZE, SIZE, 3), **options):
    """Create a narrow model of one generation."""
    function, variant = GENERATIONS[generation]
    return function(variant, num_classes, input_shape, **{"width_multiplier": WIDTH, **options})


def tiny(num_classes=4, input_shape=(SIZE, SIZE, 3), **options):
    """Create a model of the architecture `TINY`."""
    return create_mobilenetv4(TINY, num_classes, input_shape, **options)


def images(*shape, seed=0):
    """Return images of standard normal values."""
    return np.random.default_rng(seed).standard_normal(shape or (2, SIZE, SIZE, 3)).astype("float32")


def array(tensor):
    """Convert a tensor of any backend to a NumPy array."""
    return ops.convert_to_numpy(tensor)


def predict(model, x):
    """Return the model's predictions, computed by a compiled step."""
    return model.predict(x, verbose=0)


def layers_of(model):
    """Return all layers of a model and of its blocks."""
    return [layer for layer in model._flatten_layers() if layer is not model]


def randomize(model, seed=1):
    """Assign random weights that keep every layer's output from vanishing, and return the model."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, shape).astype("float32"))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign((0.1 * generator.standard_normal(shape)).astype("float32"))
    return model


def assert_close(actual, expected, tolerance=1e-5):
    """Assert equality up to `tolerance` times the largest expected value."""
    actual, expected = array(actual), array(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
