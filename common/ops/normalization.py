"""Batch, group and layer normalization as functions of tensors.

Statistics are computed in float32 whatever the input's type, and the result has the input's type.
"""

from keras import ops

from mobilenet_common.ops.formulations import fastest
from mobilenet_common.ops.formulations.keras_default import as_float32
from mobilenet_common.ops.layout import along_channels, channel_axis, split_shape


def batch_norm(x, mean, variance, gamma, beta, epsilon, activation, data_format, *, overwrite=False):
    """Return `activation((x - mean) / sqrt(variance + epsilon) * gamma + beta)`, per channel.

    `overwrite` says that nobody else reads `x`: the result may then take its place in memory.
    """
    return fastest("normalize", data_format)(
        x, mean, variance, gamma, beta, epsilon, activation, data_format, overwrite
    )


def batch_norm_training(x, gamma, beta, epsilon, activation, data_format):
    """Return the same with mean and variance over batch and space, which it returns: `(y, mean, biased variance)`."""
    return fastest("normalize_batch", data_format)(x, gamma, beta, epsilon, activation, data_format)


def pointwise_batch_norm_training(x, kernel, gamma, beta, epsilon, activation, data_format):
    """Return the same of a 1×1 convolution's output: `(y, mean, biased variance)`."""
    return fastest("pointwise_normalize_batch", data_format)(x, kernel, gamma, beta, epsilon, activation, data_format)


def activate(x, activation, data_format, *, overwrite=False):
    """Return `activation(x)`, any function of Keras; `overwrite` as for `batch_norm`."""
    return fastest("activate", data_format)(x, activation, overwrite)


def group_norm(x, gamma, beta, group_size, epsilon, data_format):
    """Normalize every image over groups of `group_size` neighboring channels and all positions (Wu & He, 2018)."""
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
    """Normalize every position over its channels, as ConvNeXt does."""
    y = as_float32(x)
    mean, variance = fastest("moments", data_format)(y, (channel_axis(data_format),))
    return ops.cast(affine((y - mean) * ops.rsqrt(variance + epsilon), gamma, beta, data_format), x.dtype)


def affine(x, gamma, beta, data_format):
    """Return `x * gamma + beta`, per channel, in the type of `x`."""
    y = as_float32(x) * along_channels(gamma, data_format) + along_channels(beta, data_format)
    return ops.cast(y, x.dtype)
