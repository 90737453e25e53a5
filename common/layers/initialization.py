"""Initial values of kernels."""

import contextlib
import contextvars
import math

import keras
import numpy as np

_BLANK = contextvars.ContextVar("blank kernels", default=False)


@contextlib.contextmanager
def blank_kernels(blank=True):
    """Within, kernels start as zeros instead of random values: those of a model whose weights come from a file.

    To draw them would be a tenth of the time that such a model takes to load.
    """
    token = _BLANK.set(blank)
    try:
        yield
    finally:
        _BLANK.reset(token)


def he_fan_out():
    """He's normal initialisation by fan-out (He et al., 2015), as torchvision and timm train MobileNets with.

    A depthwise kernel's fan-out is its window alone, since each output reads one channel.
    """
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def quick(initializer):
    """What a kernel starts with: zeros within `blank_kernels`, and else as the initializer says.

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
