"""Gradients of a depthwise convolution whose batch is sharded over two devices, with JAX.

Run it with `python -m tests.common.sharded_worker`. It prints a JSON list. Each item holds how many elements the
compiled gradient exchanges between the devices, and the largest error of the gradients.
"""

import json
import math
import re
from collections import Counter

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

jax.config.update("jax_num_cpu_devices", 2)

from mobilenet_common import ops  # noqa: E402 (after the number of devices is set)

COLLECTIVE = re.compile(r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\(")


def count_exchanged(program):
    """Count the elements of the operands of each kind of collective operation in a compiled program."""
    counts = Counter()
    for shapes, name in COLLECTIVE.findall(program):
        for sizes in re.findall(r"[a-z]+\d+\[([\d,]*)\]", shapes):
            counts[name] += math.prod(map(int, filter(None, sizes.split(","))))
    return counts


def measure(stride, data_format):
    """Compare the sharded gradients of a mean of squares with the gradients on one device."""
    rng = np.random.default_rng(0)
    shape = (4, 9, 8, 6) if data_format == "channels_last" else (4, 6, 9, 8)
    x, kernel = rng.random(shape, "float32"), rng.random((3, 3, 6, 1), "float32")
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    assert mesh.size == 2
    sharding, replicated = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())

    def loss(x, kernel):
        y = ops.depthwise_convolution(x, kernel, stride=stride, padding="same", data_format=data_format)
        return jax.numpy.mean(y**2)

    gradient = jax.grad(loss, argnums=(0, 1))
    sharded = (
        jax.jit(gradient, in_shardings=(sharding, replicated), out_shardings=(sharding, replicated))
        .lower(x, kernel)
        .compile()
    )
    results = sharded(jax.device_put(x, sharding), jax.device_put(kernel, replicated))
    errors = [
        np.abs(np.asarray(value) - np.asarray(expected)).max()
        for value, expected in zip(results, gradient(x, kernel), strict=True)
    ]
    return {
        "stride": stride,
        "data_format": data_format,
        "collectives": count_exchanged(sharded.as_text()),
        "error": float(max(errors)),
    }


if __name__ == "__main__":
    cases = [(1, "channels_last"), (2, "channels_last"), (2, "channels_first")]
    print(json.dumps([measure(*case) for case in cases]))
