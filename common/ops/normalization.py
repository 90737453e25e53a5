"""Batch, group and layer normalization as functions of tensors.

They compute statistics in float32 (float64 for float64 inputs), and return tensors of the input's dtype.
"""

from keras import ops

from mobilenet_common.ops.formulations import fastest
from mobilenet_common.ops.formulations.keras_default import as_float32
from mobilenet_common.ops.layout import along_channels, channel_axis, split_shape


def batch_norm(x, mean, variance, gamma, beta, epsilon, activation, data_format, *, overwrite=False):
    """Return `activation((x - mean) / sqrt(variance + epsilon) * gamma + beta)`, per channel.

    With `overwrite=True`, no other code may read `x`: the output can be written to its memory.
    """
    return fastest("normalize", data_format)(
        x, mean, variance, gamma, beta, epsilon, activation, data_format, overwrite
    )


def batch_norm_training(x, gamma, beta, epsilon, activation, data_format):
    """Return `batch_norm` with the statistics over batch and positions, as `(y, mean, biased variance)`."""
    return fastest("normalize_batch", data_format)(x, gamma, beta, epsilon, activation, data_format)


def pointwise_batch_norm_training(x, kernel, gamma, beta, epsilon, activation, data_format):
    """Return `batch_norm_training` of the output of a 1×1 convolution of `x` with `kernel`."""
    return fastest("pointwise_normalize_batch", data_format)(x, kernel, gamma, beta, epsilon, activation, data_format)


def activate(x, activation, data_format, *, overwrite=False):
    """Return `activation(x)` for any activation function of Keras; for `overwrite`, see `batch_norm`."""
    return fastest("activate", data_format)(x, activation, overwrite)


def group_norm(x, gamma, beta, group_size, epsilon, data_format):
    """Normalize each image over all positions and groups of `group_size` adjacent channels (Wu & He, 2018)."""
    batch, height, width, channels = split_shape(ops.shape(x), data_format)
    groups = channels // group_size
    if data_format == "channels_last":
        shape, axes = (batch, height, width, groups, group_size), (1, 2, 4)
    else:
        shape, axes = (batch, groups, group_size, height, width), (2, 3, 4)
    y = ops.reshape(as_float32(x), shape)
    mean, variance = fastest("moments", data_format)(y, axes)
    y = (y - mean) * ops.rsqrt(variance + epsilon)
    return ops.cast(affine(ops.reshape(y, ops.shape(x)), gamma, beta, data_format), x.dtype)


def layer_norm(x, gamma, beta, epsilon, data_format):
    """Normalize each position over its channels, as in ConvNeXt."""
    y = as_float32(x)
    mean, variance = fastest("moments", data_format)(y, (channel_axis(data_format),))
    return ops.cast(affine((y - mean) * ops.rsqrt(variance + epsilon), gamma, beta, data_format), x.dtype)


def affine(x, gamma, beta, data_format):
    """Return `x * gamma + beta`, per channel, in the dtype of `x`."""
    y = as_float32(x) * along_channels(gamma, data_format) + along_channels(beta, data_format)
    return ops.cast(y, x.dtype)
