"""Padding widths and output sizes of convolutions."""

from typing import Any


def output_size(size: Any, stride: int) -> Any:
    """Return the number of output rows or columns of a padded convolution: `ceil(size / stride)`, or None for None.

    For odd kernels, both paddings give the same size. They differ in the pixels that the kernel is centered on.
    """
    # Avoid negative numbers, because ONNX rounds their quotients toward zero.
    return None if size is None else (size + stride - 1) // stride


def padding_widths(size, kernel_size, stride, dilation, padding):
    """Return the widths `(before, after)` of the zero padding of an image's rows or columns, for an odd kernel.

    `"same"` is TensorFlow's padding: no wider than needed, with the larger half after the image. `"symmetric"` is
    PyTorch's padding: the same width on both sides; the last padded row or column may remain unused. At stride 1, the
    two are identical.

    Args:
        size: Number of rows or columns; a tensor if it isn't known yet.
        kernel_size: Number of rows or columns of the kernel, odd.
        stride: 1 or 2.
        dilation: Spacing between the kernel elements, in pixels.
        padding: `"same"` or `"symmetric"`.
    """
    reach = dilation * (kernel_size - 1)
    if stride == 1 or padding == "symmetric":
        return reach // 2, reach // 2
    if reach == 0:
        return 0, 0
    total = (output_size(size, stride) - 1) * stride + reach + 1 - size
    return total // 2, total - total // 2
