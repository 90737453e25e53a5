"""How wide a convolution's padding is, and how many rows come out."""

from typing import Any


def output_size(size: Any, stride: int) -> Any:
    """Return rows or columns that come out of a padded convolution: `ceil(size / stride)`, None for None.

    Both paddings give the same size for an odd kernel; they differ in which pixels the kernel is centered on.
    """
    # Without negative numbers, which a division in ONNX rounds toward zero.
    return None if size is None else (size + stride - 1) // stride


def padding_widths(size, kernel_size, stride, dilation, padding):
    """Return how many zeros `(before, after)` pad the `size` rows (or columns) of an image, for an odd kernel.

    `"same"` is TensorFlow's: as little as is needed, the larger half behind. `"symmetric"` is PyTorch's: the same on
    both sides, of which the last row may go unused. At stride 1 the two are one. `stride` is 1 or 2; a `size` that is
    not known yet may be a tensor.
    """
    reach = dilation * (kernel_size - 1)
    if stride == 1 or padding == "symmetric":
        return reach // 2, reach // 2
    if reach == 0:
        return 0, 0
    total = (output_size(size, stride) - 1) * stride + reach + 1 - size
    return total // 2, total - total // 2
