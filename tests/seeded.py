"""The tensors and images that the reference numbers were computed with, made from names alone.

The same name gives the same numbers on every machine: its SHA-256 seeds NumPy's Philox generator.
"""

import hashlib

import numpy as np


def generator(name):
    """The random generator that belongs to `name`."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest[:8], "little")))


def tensor(name, shape):
    """The tensor of a PyTorch parameter or buffer.

    Kernels keep their input's variance, so that deep networks neither die nor explode; normalization differs from
    channel to channel, so that a wrong order shows.
    """
    draw = generator(name)
    shape = tuple(shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, "int64")
    if name.endswith("running_var"):
        values = draw.uniform(0.5, 1.5, shape)
    elif name.endswith("gamma"):
        values = draw.uniform(0.5, 1.0, shape)
    elif len(shape) >= 2 and not name.endswith("running_mean"):
        values = draw.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:], dtype=int))
    elif name.endswith("weight"):
        values = draw.uniform(0.4, 0.9, shape)
    else:
        values = 0.1 * draw.standard_normal(shape)
    return values.astype("float32")


def state_dict(shapes):
    """`{name: tensor}` for `{name: shape}`."""
    return {name: tensor(name, shape) for name, shape in shapes.items()}


def image(height, width, channels=3):
    """A batch of one channels-last image of waves and noise, with mean 0 and variance 1."""
    draw = generator(f"image {height}x{width}x{channels}")
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = []
    for _ in range(channels):
        a, b, p, q = draw.uniform(1, 9, 4)
        planes.append(np.sin(a * columns + p) * np.cos(b * rows + q))
    waves = np.stack(planes, -1) + 0.5 * draw.standard_normal((height, width, channels))
    return ((waves - waves.mean()) / waves.std()).astype("float32")[None]


def randomized(model):
    """The model with weights that hide no factor, as a fresh batch norm does, and that keep a deep network's scale."""
    for variable in model.weights:
        name = variable.path.rpartition("/")[2]
        draw, shape = generator(variable.path), tuple(variable.shape)
        if name == "moving_variance":
            variable.assign(draw.uniform(0.5, 1.5, shape))
        elif name == "gamma":
            variable.assign(draw.uniform(0.4, 0.9, shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(0.1 * draw.standard_normal(shape))
        elif name == "kernel":
            fan_in = np.prod(shape[:2] if shape[-1] == 1 else shape[:-1], dtype=int)
            variable.assign(np.sqrt(2.0 / fan_in) * draw.standard_normal(shape))
    return model
