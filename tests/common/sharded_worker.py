"""Depthwise convolution of a batch that two devices share: `python -m tests.common.sharded_worker`, under JAX.

Prints a JSON list: for each case what the compiled gradient exchanges between the devices, and its largest error.
"""

import json
import math
import re
from collections import Counter

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

jax.config.update("jax_num_cpu_devices", 2)

from mobilenet_common import ops  # noqa: E402 (after JAX knows its devices)

COLLECTIVE = re.compile(r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\(")


def exchanged(program):
    """Elements that each kind of collective operation of a compiled program takes, of all its operands."""
    counts = Counter()
    for shapes, name in COLLECTIVE.findall(program):
        for sizes in re.findall(r"[a-z]+\d+\[([\d,]*)\]", shapes):
            counts[name] += math.prod(map(int, filter(None, sizes.split(","))))
    return counts


def measure(stride, data_format):
    """One case: both gradients of a sum of squares, sharded and whole."""
    rng = np.random.default_rng(0)
    shape = (4, 9, 8, 6) if data_format == "channels_last" else (4, 6, 9, 8)
    x, kernel = rng.random(shape, "float32"), rng.random((3, 3, 6, 1), "float32")
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    assert mesh.size == 2
    split, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())

    def score(x, kernel):
        y = ops.depthwise_convolution(x, kernel, stride=stride, padding="same", data_format=data_format)
        return jax.numpy.mean(y**2)

    gradient = jax.grad(score, argnums=(0, 1))
    sharded = jax.jit(gradient, in_shardings=(split, whole), out_shardings=(split, whole)).lower(x, kernel).compile()
    found = sharded(jax.device_put(x, split), jax.device_put(kernel, whole))
    errors = [np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in zip(found, gradient(x, kernel), strict=True)]
    return {
        "stride": stride,
        "data_format": data_format,
        "collectives": exchanged(sharded.as_text()),
        "error": float(max(errors)),
    }


if __name__ == "__main__":
    cases = [(1, "channels_last"), (2, "channels_last"), (2, "channels_first")]
    print(json.dumps([measure(*case) for case in cases]))
