"""Initial values of kernels."""

import contextlib
import contextvars
import math
from collections.abc import Iterator

import keras
import numpy as np

_BLANK = contextvars.ContextVar("blank kernels", default=False)


@contextlib.contextmanager
def blank_kernels(blank: bool = True) -> Iterator[None]:
    """Let kernels start as zeros in this scope: those of a model whose weights come from a file.

    To draw them would be a tenth of the time that such a model takes to load.
    """
    token = _BLANK.set(blank)
    try:
        yield
    finally:
        _BLANK.reset(token)


# Which kernel starts how. The sources disagree, so each choice names its own:
#
# - Convolutions, those of squeeze-and-excitation too: timm's rule, which is that of Google's code for MnasNet and
#   EfficientNet. A normalization follows nearly all of them, so the scale changes no output, only how fast training
#   moves them. The own code of MobileNetV1 to V3 draws every kernel from a truncated normal distribution with the
#   standard deviation 0.09; that of MobileNetV4 uses a truncated normal distribution by fan-in.
# - MobileNetV4's attention, its depthwise convolutions too: Glorot's rule. Its own code leaves it to Keras's defaults,
#   and timm chose the same. For multi-head attention, which no published model has, timm uses the convolutions' rule.
# - The compact family's attention: PyTorch's default, to which its own code leaves it. Its scores are not scaled, so
#   larger kernels start the softmax closer to one-hot.
# - The classifier: timm's rule, but no wider than for 1000 classes. For few classes timm's makes the first loss large:
#   7.6 for 10 classes on the features of a MobileNetV2 trained on ImageNet, where chance is 2.3 and this rule 2.4.
#
# Biases start at 0, normalization at the identity.


def he_fan_out():
    """Return He's normal initializer by fan-out (He et al., 2015), for convolutions.

    A depthwise kernel's fan-out is its window alone, since each output reads one channel.
    """
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def glorot():
    """Return Glorot's uniform initializer (Glorot & Bengio, 2010), for attention over positions."""
    return keras.initializers.GlorotUniform()


def torch_default():
    """Return PyTorch's default initializer, for attention over channels: uniform up to `1 / sqrt(fan-in)`."""
    return keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def classifier_uniform(num_classes):
    """Return the classifier's initializer: uniform up to `1 / sqrt(num_classes)`, as if there were at least 1000."""
    limit = 1 / math.sqrt(max(num_classes, 1000))
    return keras.initializers.RandomUniform(-limit, limit)


def effective_initializer(initializer):
    """Return what a kernel starts with: zeros within `blank_kernels`, and else as the initializer says.

    Under JAX, where the initializer allows, that is a function of the same distribution that NumPy draws.

    JAX compiles a program for each shape that it draws, which takes longer than all else in creating a model.
    """
    if _BLANK.get():
        return "zeros"
    drawn = getattr(initializer, "distribution", None) in ("untruncated_normal", "uniform")
    known = isinstance(initializer, keras.initializers.VarianceScaling) and isinstance(initializer.seed, int)
    if keras.backend.backend() != "jax" or not drawn or not known:
        return initializer

    def draw(shape, dtype=None):
        window = math.prod(shape[:-2])
        fan_in, fan_out = window * shape[-2], window * shape[-1]
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[initializer.mode]
        deviation = math.sqrt(initializer.scale / max(1.0, fan))
        generator = np.random.default_rng(initializer.seed)
        if initializer.distribution == "uniform":
            limit = math.sqrt(3.0) * deviation
            values = generator.uniform(-limit, limit, shape)
        else:
            values = generator.normal(0.0, deviation, shape)
        return keras.ops.convert_to_tensor(values.astype("float32"), dtype)

    return draw
