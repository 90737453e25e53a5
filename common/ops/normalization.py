"""Batch, group and layer normalisation as functions of tensors.

Statistics are computed in float32 whatever the input's type, and the result has the input's type.
"""

from keras import ops
from keras.backend import standardize_dtype

from mobilenet_common.ops.layout import along_channels, channel_axis, spatial_axes, split_shape


def batch_moments(x, data_format):
    """Per-channel mean and (biased) variance over batch and space, in float32."""
    axes = (0, *spatial_axes(data_format))
    mean, variance = _moments(_float32(x), axes)
    return ops.squeeze(mean, axes), ops.squeeze(variance, axes)


def batch_norm(x, mean, variance, gamma, beta, epsilon, data_format):
    """`(x - mean) / sqrt(variance + epsilon) * gamma + beta`, per channel."""
    y = ops.batch_normalization(
        _float32(x), mean, variance, axis=channel_axis(data_format), offset=beta, scale=gamma, epsilon=epsilon
    )
    return ops.cast(y, x.dtype)


def group_norm(x, gamma, beta, group_size, epsilon, data_format):
    """Normalises every picture over groups of `group_size` neighbouring channels and all positions (Wu & He, 2018)."""
    batch, height, width, channels = split_shape(ops.shape(x), data_format)
    groups = channels // group_size
    if data_format == "channels_last":
        shape, axes = (batch, height, width, groups, group_size), (1, 2, 4)
    else:
        shape, axes = (batch, groups, group_size, height, width), (2, 3, 4)
    y = ops.reshape(_float32(x), shape)
    mean, variance = _moments(y, axes)
    y = (y - mean) * ops.rsqrt(variance + epsilon)
    return _scale(ops.reshape(y, ops.shape(x)), gamma, beta, x.dtype, data_format)


def layer_norm(x, gamma, beta, epsilon, data_format):
    """Normalises every position over its channels, as ConvNeXt does."""
    y = _float32(x)
    mean, variance = _moments(y, (channel_axis(data_format),))
    return _scale((y - mean) * ops.rsqrt(variance + epsilon), gamma, beta, x.dtype, data_format)


def _moments(x, axes):
    """Mean and variance over `axes`, which stay with size 1.

    One axis at a time: TensorFlow adds up several in one long float32 sum, which loses two digits on large maps.
    """
    mean = mean_over(x, axes)
    return mean, mean_over(ops.square(x - mean), axes)


def mean_over(x, axes):
    """The mean over `axes`, which stay with size 1, taken one axis at a time."""
    for axis in reversed(axes):
        x = ops.mean(x, axis=axis, keepdims=True)
    return x


def _scale(y, gamma, beta, dtype, data_format):
    return ops.cast(y * along_channels(gamma, data_format) + along_channels(beta, data_format), dtype)


def _float32(x):
    return x if standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")
