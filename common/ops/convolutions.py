"""Full, pointwise and depthwise 2-D convolutions with the padding of TensorFlow or PyTorch."""

import keras
from keras import ops

from mobilenet_common.ops.formulations import fastest, is_traced_for_export
from mobilenet_common.ops.layout import channel_axis

_MIN_PRODUCTS_PER_SUM = 148


def convolution(x, kernel, bias=None, *, stride=1, dilation=1, padding="same", data_format="channels_last"):
    """Return a full 2-D convolution.

    Args:
        x: Images of shape `(batch, height, width, in)`, or `(batch, in, height, width)`.
        kernel: Kernel of shape `(rows, columns, in, out)`, where `rows` and `columns` are odd.
        bias: Vector of shape `(out,)` to add to every pixel, or None.
        stride: Stride in both directions, 1 or 2.
        dilation: Spacing between the kernel elements, in pixels.
        padding: `"same"` for TensorFlow's padding: at stride 2, more of it goes below and to the right of the image.
            `"symmetric"` for PyTorch's padding: `dilation * (rows - 1) / 2` pixels on every side.
        data_format: `"channels_last"` or `"channels_first"`.

    Returns:
        Tensor of shape `(batch, ceil(height / stride), ceil(width / stride), out)`, or channels first.
    """
    convolve = fastest("pointwise" if kernel.shape[0] == 1 else "dense", data_format)
    parts = _num_parts(kernel)
    if parts == 1:
        return convolve(x, kernel, bias, stride, dilation, padding, data_format)
    x_parts = ops.split(x, parts, axis=channel_axis(data_format))
    biases = [bias] + [None] * (parts - 1)
    return sum(
        convolve(x_part, kernel_part, bias_part, stride, dilation, padding, data_format)
        for x_part, kernel_part, bias_part in zip(x_parts, ops.split(kernel, parts, axis=2), biases, strict=True)
    )


def _num_parts(kernel):
    """Return the number of groups of input channels that a spatial convolution is split into.

    On a CPU, JAX and PyTorch add up all products of a kernel one after the other. In float32, a long sum loses digits,
    and networks without shortcuts amplify this error a hundredfold. A few shorter sums halve the error. The
    convolutions of the published V1 to V4 are too small to be split, and exported graphs don't split convolutions.
    """
    rows, columns, channels, _ = kernel.shape
    if rows == 1 or is_traced_for_export() or keras.backend.standardize_dtype(kernel.dtype) != "float32":
        return 1
    max_parts = max(1, rows * columns * channels // _MIN_PRODUCTS_PER_SUM)
    return next(parts for parts in (6, 4, 3, 2, 1) if channels % parts == 0 and parts <= max_parts)


def depthwise_convolution(x, kernel, bias=None, *, stride=1, dilation=1, padding="same", data_format="channels_last"):
    """Return a depthwise 2-D convolution, with a kernel of shape `(rows, columns, channels, 1)`.

    The other arguments and the output are the same as in `convolution`, where `out` is the number of channels.
    """
    return fastest("depthwise", data_format)(x, kernel, bias, stride, dilation, padding, data_format)
