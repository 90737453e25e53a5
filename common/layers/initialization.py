"""Initializers of kernels."""

import contextlib
import contextvars
import math
from collections.abc import Iterator

import keras
import numpy as np

_BLANK = contextvars.ContextVar("blank kernels", default=False)


@contextlib.contextmanager
def blank_kernels(blank: bool = True) -> Iterator[None]:
    """Initialize kernels with zeros in this scope, for a model whose weights are loaded from a file.

    Drawing random values would account for a tenth of the time that it takes to load such a model.

    Args:
        blank: Whether to use zeros. False leaves the initializers unchanged.
    """
    token = _BLANK.set(blank)
    try:
        yield
    finally:
        _BLANK.reset(token)


# The initializer of each kind of layer. Published implementations disagree, so each entry names its source:
#
# - Convolutions, including those of squeeze-and-excitation: timm's rule, which Google's code for MnasNet and
#   EfficientNet uses too. A normalization follows nearly all convolutions, so the scale of their kernels doesn't change
#   the outputs, only how fast training changes the kernels. The original code of MobileNetV1 to V3 draws every kernel
#   from a truncated normal distribution with a standard deviation of 0.09, and the original code of MobileNetV4 from a
#   truncated normal distribution scaled by fan-in.
# - MobileNetV4's attention, including its depthwise convolutions: Glorot's rule. The original code uses Keras's
#   defaults, and timm chose the same. For multi-head attention, which no published model has, timm uses its rule for
#   convolutions.
# - The compact family's attention: PyTorch's default, which the original code uses too. The attention scores aren't
#   scaled, so with larger kernels, the initial softmax would be closer to one-hot.
# - The classifier: timm's rule, but with a range no wider than for 1000 classes. With few classes, timm's rule makes
#   the initial loss large: 7.6 for 10 classes on the features of a MobileNetV2 trained on ImageNet. Chance is 2.3, and
#   this rule gives 2.4.
#
# Biases start at 0, and normalizations start as the identity.


def he_fan_out():
    """Return He's normal initializer, scaled by fan-out (He et al., 2015), for convolutions.

    The fan-out of a depthwise kernel is `rows * columns`, since a depthwise convolution doesn't mix channels.
    """
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def glorot():
    """Return Glorot's uniform initializer (Glorot & Bengio, 2010), for attention over positions."""
    return keras.initializers.GlorotUniform()


def torch_default():
    """Return PyTorch's default initializer, for attention over channels: uniform within ±`1 / sqrt(fan_in)`."""
    return keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def classifier_uniform(num_classes):
    """Return the classifier's initializer: uniform within ±`1 / sqrt(max(num_classes, 1000))`."""
    limit = 1 / math.sqrt(max(num_classes, 1000))
    return keras.initializers.RandomUniform(-limit, limit)


def effective_initializer(initializer):
    """Return the initializer to create a kernel with: zeros inside `blank_kernels`, else `initializer`.

    Under JAX, a seeded normal or uniform `VarianceScaling` is replaced by a function that draws from the same
    distribution with NumPy. JAX would compile a program for each shape, which takes longer than all other steps of
    creating a model.
    """
    if _BLANK.get():
        return "zeros"
    is_supported = getattr(initializer, "distribution", None) in ("untruncated_normal", "uniform")
    is_seeded = isinstance(initializer, keras.initializers.VarianceScaling) and isinstance(initializer.seed, int)
    if keras.backend.backend() != "jax" or not is_supported or not is_seeded:
        return initializer

    def draw(shape, dtype=None):
        window = math.prod(shape[:-2])
        fan_in, fan_out = window * shape[-2], window * shape[-1]
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[initializer.mode]
        stddev = math.sqrt(initializer.scale / max(1.0, fan))
        generator = np.random.default_rng(initializer.seed)
        if initializer.distribution == "uniform":
            limit = math.sqrt(3.0) * stddev
            values = generator.uniform(-limit, limit, shape)
        else:
            values = generator.normal(0.0, stddev, shape)
        return keras.ops.convert_to_tensor(values.astype("float32"), dtype)

    return draw
