"""TensorFlow: batch norm over a batch of which each replica of a `tf.distribute.Strategy` has an equal part."""

import tensorflow as tf

from mobilenet_common.ops.formulations import keras_default
from mobilenet_common.ops.layout import spatial_axes


def normalize_batch(x, gamma, beta, epsilon, activation, data_format):
    """Return `keras_default.normalize_batch` with the statistics of all replicas; called in a replica's context."""
    axes = (0, *spatial_axes(data_format))
    single = keras_default.as_float32(x)
    mean = _mean_over_replicas(keras_default.mean_over(single, axes))
    # The second mean waits for the first: that of the squares alone would lose digits where the mean is large.
    variance = _mean_over_replicas(keras_default.mean_over(tf.square(single - mean), axes))
    mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
    y = keras_default.normalize(x, mean, variance, gamma, beta, epsilon, activation, data_format, False)
    return y, mean, variance


def _mean_over_replicas(x):
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, x)
