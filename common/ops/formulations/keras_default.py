"""Default formulations, which use Keras's own operations.

They run where no faster formulation is known, and the other formulations are tested against them.
"""

import keras
from keras import ops

from mobilenet_common.ops.geometry import padding_widths
from mobilenet_common.ops.layout import (
    along_channels,
    channel_axis,
    lacks_channels_first,
    spatial_axes,
    to_channels_first,
    to_channels_last,
)


def dense(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a full convolution with a kernel `(rows, columns, in, out)` and a bias `(out,)` or None."""
    if lacks_channels_first() and data_format == "channels_first":
        return to_channels_first(dense(to_channels_last(x), kernel, bias, stride, dilation, padding, "channels_last"))
    if stride > 1 and dilation > 1 and keras.backend.backend() == "tensorflow":
        return _dilated_and_strided(x, kernel, bias, stride, dilation, padding, data_format)
    return _convolve(ops.conv, x, kernel, bias, stride, dilation, padding, data_format)


pointwise = dense  # A pointwise convolution is a full convolution with a 1×1 kernel.


def depthwise(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a depthwise convolution with a kernel `(rows, columns, channels, 1)` and a bias `(channels,)` or None."""
    return _convolve(ops.depthwise_conv, x, kernel, bias, stride, dilation, padding, data_format)


def _convolve(convolve, x, kernel, bias, stride, dilation, padding, data_format):
    size = kernel.shape[0]
    if padding == "same" or stride == 1 or size == 1:  # At stride 1, both paddings are identical.
        keras_padding = "same"
    else:
        before = dilation * (size - 1) // 2
        widths = [(0, 0)] * 4
        for axis in spatial_axes(data_format):
            widths[axis] = (before, before)
        x, keras_padding = ops.pad(x, widths), "valid"
    y = convolve(x, kernel, strides=stride, padding=keras_padding, dilation_rate=dilation, data_format=data_format)
    return add_bias(y, bias, data_format)


def _dilated_and_strided(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a full convolution with dilation and stride, computed at stride 1 and then subsampled.

    TensorFlow doesn't support dilation and strides in one convolution.
    """
    widths, kept = [(0, 0)] * 4, [slice(None)] * 4
    for axis, rows in zip(spatial_axes(data_format), kernel.shape[:2], strict=True):
        widths[axis] = padding_widths(ops.shape(x)[axis], rows, stride, dilation, padding)
        kept[axis] = slice(None, None, stride)
    options = {"padding": "valid", "dilation_rate": dilation, "data_format": data_format}
    y = ops.conv(ops.pad(x, widths), kernel, strides=1, **options)
    return add_bias(y[tuple(kept)], bias, data_format)


def add_bias(x, bias, data_format):
    """Return `x + bias`, where `bias` is a vector over the channels, or `x` if `bias` is None."""
    return x if bias is None else x + along_channels(bias, data_format)


def normalize(x, mean, variance, gamma, beta, epsilon, activation, data_format, overwrite):
    """Return batch norm with given statistics, followed by an activation.

    `x` has any float dtype; the other tensors are float32. With `overwrite=True`, no other code may read `x`: a
    formulation can write the output to its memory.
    """
    y = ops.batch_normalization(
        as_float32(x), mean, variance, axis=channel_axis(data_format), offset=beta, scale=gamma, epsilon=epsilon
    )
    return activation(ops.cast(y, x.dtype))


def normalize_batch(x, gamma, beta, epsilon, activation, data_format):
    """Return `(y, mean, biased variance)`: batch norm with the batch's statistics, followed by an activation."""
    axes = (0, *spatial_axes(data_format))
    mean, variance = moments(as_float32(x), axes)
    mean, variance = ops.squeeze(mean, axes), ops.squeeze(variance, axes)
    y = normalize(x, mean, variance, gamma, beta, epsilon, activation, data_format, False)
    return y, mean, variance


def pointwise_normalize_batch(x, kernel, gamma, beta, epsilon, activation, data_format):
    """Return `normalize_batch` of the output of a 1×1 convolution."""
    y = pointwise(x, kernel, None, 1, 1, "same", data_format)
    return normalize_batch(y, gamma, beta, epsilon, activation, data_format)


def activate(x, activation, overwrite):
    """Return `activation(x)`; for `overwrite`, see `normalize`."""
    return activation(x)


def attend(query, key, value, dropout):
    """Return `softmax(query keyᵀ / sqrt(key_size)) value` over the last two axes, with `dropout` on the weights."""
    # Scale before the product, which could overflow in float16.
    weights = ops.matmul(query * query.shape[-1] ** -0.5, ops.swapaxes(key, -1, -2))
    weights = ops.cast(ops.softmax(as_float32(weights)), value.dtype)
    if dropout is not None:
        weights = dropout(weights)
    return ops.matmul(weights, value)


def moments(x, axes):
    """Return the mean and biased variance over `axes`, which are kept with size 1.

    The axes are reduced one at a time: TensorFlow reduces several axes in one long float32 sum, which loses two digits
    on large maps.
    """
    mean = mean_over(x, axes)
    return mean, mean_over(ops.square(x - mean), axes)


def mean_over(x, axes):
    """Return the mean over `axes`, which are kept with size 1, reducing one axis at a time."""
    for axis in reversed(axes):
        x = ops.mean(x, axis=axis, keepdims=True)
    return x


def single_mean(x, axes):
    """Return the same as `mean_over`, computed by a single operation."""
    return ops.mean(x, axis=tuple(axes), keepdims=True)


def single_moments(x, axes):
    """Return the same as `moments`, computed by one operation for each of the two means."""
    mean = single_mean(x, axes)
    return mean, single_mean(ops.square(x - mean), axes)


def as_float32(x):
    """Return `x` as float32, or unchanged if it is float64."""
    return x if "float64" in str(x.dtype) else ops.cast(x, "float32")
