"""Random tensors and images for the reference outputs, generated from names alone.

The same name gives the same values on every machine: its SHA-256 hash seeds NumPy's Philox generator.
"""

import hashlib

import numpy as np


def generator(name):
    """Return the random generator for `name`."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest[:8], "little")))


def tensor(name, shape):
    """Return the tensor of a PyTorch parameter or buffer.

    Kernels preserve their input's variance, so that activations in deep networks neither vanish nor explode.
    Normalization parameters differ between channels, so that tests detect a wrong channel order.
    """
    rng = generator(name)
    shape = tuple(shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, "int64")
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("gamma"):
        values = rng.uniform(0.5, 1.0, shape)
    elif len(shape) >= 2 and not name.endswith("running_mean"):
        values = rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:], dtype=int))
    elif name.endswith("weight"):
        values = rng.uniform(0.4, 0.9, shape)
    else:
        values = 0.1 * rng.standard_normal(shape)
    return values.astype("float32")


def state_dict(shapes):
    """Return `{name: tensor}` for `{name: shape}`."""
    return {name: tensor(name, shape) for name, shape in shapes.items()}


def image(height, width, channels=3):
    """Return a batch of one channels-last image of waves and noise, with mean 0 and variance 1."""
    rng = generator(f"image {height}x{width}x{channels}")
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = []
    for _ in range(channels):
        a, b, p, q = rng.uniform(1, 9, 4)
        planes.append(np.sin(a * columns + p) * np.cos(b * rows + q))
    waves = np.stack(planes, -1) + 0.5 * rng.standard_normal((height, width, channels))
    return ((waves - waves.mean()) / waves.std()).astype("float32")[None]


def randomized(model):
    """Assign random weights that preserve the scale of activations, and return the model.

    Unlike in a new batch norm, no factor is 1 and no offset is 0, so that tests detect a missing one.
    """
    for variable in model.weights:
        name = variable.path.rpartition("/")[2]
        rng, shape = generator(variable.path), tuple(variable.shape)
        if name == "moving_variance":
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif name == "gamma":
            variable.assign(rng.uniform(0.4, 0.9, shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(0.1 * rng.standard_normal(shape))
        elif name == "kernel":
            fan_in = np.prod(shape[:2] if shape[-1] == 1 else shape[:-1], dtype=int)
            variable.assign(np.sqrt(2.0 / fan_in) * rng.standard_normal(shape))
    return model
