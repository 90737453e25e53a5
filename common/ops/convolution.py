"""Dense and depthwise 2-D convolution with the padding of TensorFlow or of PyTorch."""

import keras
from keras import ops

from mobilenet_common.ops.layout import (
    channel_axis,
    lacks_channels_first,
    spatial_axes,
    to_channels_first,
    to_channels_last,
)

PADDINGS = ("same", "symmetric")
_LONG_SUM = 144  # products


def output_size(size, stride):
    """Rows or columns that come out of a padded convolution: `ceil(size / stride)`, None for None.

    Both paddings give the same size for an odd kernel; they differ in which pixels the kernel is centred on.
    """
    return None if size is None else -(-size // stride)


def convolution(x, kernel, *, stride=1, dilation=1, padding="same", data_format="channels_last"):
    """2-D convolution.

    Args:
        x: Images, `(batch, height, width, in)` or `(batch, in, height, width)`.
        kernel: `(rows, columns, in, out)`, rows and columns odd.
        stride: 1 or 2.
        dilation: Distance between the taps, in pixels.
        padding: `"same"` pads as TensorFlow does: at stride 2 a larger share falls below and to the right.
            `"symmetric"` pads as PyTorch models do: `dilation * (rows - 1) / 2` pixels on every side.
        data_format: `"channels_last"` or `"channels_first"`.

    Returns:
        `(batch, ceil(height / stride), ceil(width / stride), out)`, or its channels-first counterpart.
    """
    if lacks_channels_first() and data_format == "channels_first":
        y = convolution(to_channels_last(x), kernel, stride=stride, dilation=dilation, padding=padding)
        return to_channels_first(y)
    parts = _parts(kernel)
    if parts == 1:
        return _convolve(keras.ops.conv, x, kernel, stride, dilation, padding, data_format)
    return sum(
        _convolve(keras.ops.conv, x_part, kernel_part, stride, dilation, padding, data_format)
        for x_part, kernel_part in zip(
            ops.split(x, parts, axis=channel_axis(data_format)), ops.split(kernel, parts, axis=2), strict=True
        )
    )


def _parts(kernel):
    """In how many groups of input channels a spatial convolution is added up.

    JAX and PyTorch sum all of a kernel's products one after the other on a CPU. In float32 a long sum loses digits,
    which networks without shortcuts amplify a hundredfold; a few shorter ones halve the loss. Published V1 to V4 stay
    below the limit.
    """
    rows, columns, channels, _ = kernel.shape
    if rows == 1 or keras.backend.standardize_dtype(kernel.dtype) != "float32":
        return 1
    most = max(1, rows * columns * channels // _LONG_SUM)
    return next(parts for parts in (6, 4, 3, 2, 1) if channels % parts == 0 and parts <= most)


def depthwise_convolution(x, kernel, *, stride=1, dilation=1, padding="same", data_format="channels_last"):
    """2-D convolution of every channel with a kernel of its own, `(rows, columns, channels, 1)`.

    The other arguments and the result are those of `convolution`.
    """
    return _convolve(keras.ops.depthwise_conv, x, kernel, stride, dilation, padding, data_format)


def _convolve(convolve, x, kernel, stride, dilation, padding, data_format):
    size = kernel.shape[0]
    if padding == "same" or stride == 1 or size == 1:  # at stride 1 the two paddings are one
        keras_padding = "same"
    else:
        before = dilation * (size - 1) // 2
        widths = [(0, 0)] * 4
        for axis in spatial_axes(data_format):
            widths[axis] = (before, before)
        x, keras_padding = ops.pad(x, widths), "valid"
    return convolve(x, kernel, strides=stride, padding=keras_padding, dilation_rate=dilation, data_format=data_format)
