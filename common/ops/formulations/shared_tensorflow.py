"""TensorFlow's batch norm over a batch that the replicas of a `tf.distribute.Strategy` share in equal parts."""

import tensorflow as tf

from mobilenet_common.ops.formulations import keras_default
from mobilenet_common.ops.layout import spatial_axes


def normalize_batch(x, gamma, beta, epsilon, activation, data_format):
    """Return `keras_default.normalize_batch` with the statistics of all replicas; call it in a replica context."""
    axes = (0, *spatial_axes(data_format))
    x_float = keras_default.as_float32(x)
    mean = _mean_over_replicas(keras_default.mean_over(x_float, axes))
    # Subtract the mean before squaring: the mean of the plain squares would lose digits if the mean is large.
    variance = _mean_over_replicas(keras_default.mean_over(tf.square(x_float - mean), axes))
    mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
    y = keras_default.normalize(x, mean, variance, gamma, beta, epsilon, activation, data_format, False)
    return y, mean, variance


def _mean_over_replicas(x):
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, x)
