"""Batch norm of a batch split over processes or replicas: `python -m tests.training.batch_norm_worker CONFIG`.

Each process or replica writes its part of the output, the statistics and the gradients to `folder/part<index>.npz`.
The gradients are those of the weighted sum of the output.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np

from mobilenet_common import ops
from mobilenet_common.ops.formulations import batch_shared
from mobilenet_zoo.training.devices import open_cluster

SHAPE, FILTERS, EPSILON = (8, 5, 4, 6), 16, 1e-3


def arrays(data_format="channels_last"):
    rng = np.random.default_rng(0)
    # A mean much larger than the standard deviation, and parts that differ, expose formulas that lose precision.
    x = rng.normal(3.0, 0.5, SHAPE) + np.arange(SHAPE[0])[:, None, None, None]
    kernel, gamma, beta = (
        rng.normal(size=(1, 1, SHAPE[-1], FILTERS)),
        rng.normal(size=FILTERS),
        rng.normal(size=FILTERS),
    )
    weights = rng.normal(size=(*SHAPE[:-1], FILTERS))
    if data_format == "channels_first":
        x, weights = (np.moveaxis(array, -1, 1) for array in (x, weights))
    return [array.astype("float32") for array in (x, kernel, gamma, beta, weights)]


def apply_batch_norms(x, kernel, gamma, beta, data_format):
    """Apply a convolution and both operations of the library that normalize with batch statistics."""
    options = (EPSILON, keras.activations.relu, data_format)
    y, mean, variance = ops.pointwise_batch_norm_training(x, kernel, gamma, beta, *options)
    z, *_ = ops.batch_norm_training(y, gamma, beta, EPSILON, keras.activations.hard_silu, data_format)
    return z, mean, variance


def torch_parts(cluster, config):
    import torch

    from mobilenet_common.ops.formulations import shared_torch

    x, kernel, gamma, beta, weights = (torch.tensor(array) for array in arrays(config["data_format"]))
    boundaries = config["cuts"]
    local = slice(boundaries[cluster.process_index], boundaries[cluster.process_index + 1])
    leaves = [array.clone().requires_grad_() for array in (x[local], kernel, gamma, beta)]
    with batch_shared(shared_torch.normalize_batch):
        z, mean, variance = apply_batch_norms(*leaves, config["data_format"])
    (z * weights[local]).sum().backward()
    yield (
        cluster.process_index,
        [value.detach().numpy() for value in (z, mean, variance, *(leaf.grad for leaf in leaves))],
    )


def tensorflow_parts(cluster, config):
    import tensorflow as tf

    from mobilenet_common.ops.formulations import shared_tensorflow

    x, kernel, gamma, beta, weights = arrays(config["data_format"])
    part_size = len(x) // cluster.devices

    @tf.function
    def run():
        def replica():
            i = tf.distribute.get_replica_context().replica_id_in_sync_group
            local = tf.constant(x)[i * part_size : (i + 1) * part_size]
            leaves = [local, tf.constant(kernel), tf.constant(gamma), tf.constant(beta)]
            with tf.GradientTape() as tape:
                tape.watch(leaves)
                z, mean, variance = apply_batch_norms(*leaves, config["data_format"])
                score = tf.reduce_sum(z * tf.constant(weights)[i * part_size : (i + 1) * part_size])
            return (z, mean, variance, *tape.gradient(score, leaves))

        with batch_shared(shared_tensorflow.normalize_batch):
            return cluster._strategy.run(replica)

    values = [cluster._strategy.experimental_local_results(value) for value in run()]
    for i in range(cluster.devices):
        yield i, [value[i].numpy() for value in values]


def main(config):
    with open_cluster(config["devices"]) as cluster:
        run = torch_parts if keras.backend.backend() == "torch" else tensorflow_parts
        for index, values in run(cluster, config):
            names = ("z", "mean", "variance", "x", "kernel", "gamma", "beta")
            np.savez(Path(config["folder"], f"part{index}.npz"), **dict(zip(names, values, strict=True)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
