"""Dense, pointwise and depthwise 2-D convolution with the padding of TensorFlow or of PyTorch."""

import keras
from keras import ops

from mobilenet_common.ops.formulations import fastest, is_traced_for_export
from mobilenet_common.ops.layout import channel_axis

_LONG_SUM = 148  # products


def convolution(x, kernel, bias=None, *, stride=1, dilation=1, padding="same", data_format="channels_last"):
    """Return 2-D convolution.

    Args:
        x: Images, `(batch, height, width, in)` or `(batch, in, height, width)`.
        kernel: `(rows, columns, in, out)`, rows and columns odd.
        bias: `(out,)`, added to every pixel, or None.
        stride: 1 or 2.
        dilation: Distance between the taps, in pixels.
        padding: `"same"` pads as TensorFlow does: at stride 2 a larger share falls below and to the right.
            `"symmetric"` pads as PyTorch models do: `dilation * (rows - 1) / 2` pixels on every side.
        data_format: `"channels_last"` or `"channels_first"`.

    Returns:
        `(batch, ceil(height / stride), ceil(width / stride), out)`, or its channels-first counterpart.
    """
    convolve = fastest("pointwise" if kernel.shape[0] == 1 else "dense", data_format)
    parts = _parts(kernel)
    if parts == 1:
        return convolve(x, kernel, bias, stride, dilation, padding, data_format)
    x_parts = ops.split(x, parts, axis=channel_axis(data_format))
    biases = [bias] + [None] * (parts - 1)
    return sum(
        convolve(x_part, kernel_part, bias_part, stride, dilation, padding, data_format)
        for x_part, kernel_part, bias_part in zip(x_parts, ops.split(kernel, parts, axis=2), biases, strict=True)
    )


def _parts(kernel):
    """Return how many groups of input channels a spatial convolution is summed in.

    JAX and PyTorch sum all of a kernel's products one after the other on a CPU. In float32 a long sum loses digits,
    which networks without shortcuts amplify a hundredfold; a few shorter ones halve the loss. Published V1 to V4 stay
    below the limit. An exported graph keeps its convolutions whole.
    """
    rows, columns, channels, _ = kernel.shape
    if rows == 1 or is_traced_for_export() or keras.backend.standardize_dtype(kernel.dtype) != "float32":
        return 1
    most = max(1, rows * columns * channels // _LONG_SUM)
    return next(parts for parts in (6, 4, 3, 2, 1) if channels % parts == 0 and parts <= most)


def depthwise_convolution(x, kernel, bias=None, *, stride=1, dilation=1, padding="same", data_format="channels_last"):
    """Return 2-D convolution of every channel with a kernel of its own, `(rows, columns, channels, 1)`.

    The other arguments and the result are those of `convolution`.
    """
    return fastest("depthwise", data_format)(x, kernel, bias, stride, dilation, padding, data_format)
