"""Depthwise convolution and its two gradients as sums of shifted images, for compilers that fuse such sums.

XLA's CPU backend runs a grouped convolution one group after the other. Written as a sum of k × k shifted slices, each
multiplied by one weight per channel, the convolution becomes a single vectorized loop. All functions use Keras
operations on tensors of any backend, and compute their sums in float32. The image size must be known when the program
is compiled, but not when it is traced.
"""

from keras import ops

from mobilenet_common.ops.formulations.keras_default import as_float32
from mobilenet_common.ops.geometry import output_size, padding_widths
from mobilenet_common.ops.layout import along_channels, join_shape, spatial_axes, split_shape


def identity(x):
    """Return `x`. Pass this as `materialize` if the compiler has no operation that writes a tensor to memory."""
    return x


def forward(x, kernel, stride, dilation, padding, data_format, materialize=identity):
    """Return a depthwise convolution, like `keras_default.depthwise` without a bias.

    `materialize` is a function that is applied to the padded image. If the compiler has an operation that writes a
    tensor to memory, pass it: otherwise the padding is fused into the loop of the sum, which then checks for the
    image's edge at every tap.
    """
    _, height, width, _ = split_shape(ops.shape(x), data_format)
    padded = materialize(_padded(as_float32(x), kernel.shape[:2], stride, dilation, padding, data_format))
    kernel = as_float32(kernel)
    counts = output_size(height, stride), output_size(width, stride)
    y = None
    for i, j in _taps(kernel.shape):
        window = _window(padded, (i * dilation, j * dilation), counts, stride, data_format)
        term = window * along_channels(kernel[i, j, :, 0], data_format)
        y = term if y is None else y + term
    return ops.cast(y, x.dtype)


def input_gradient(g, kernel, size, stride, dilation, padding, data_format, materialize=identity):
    """Return the gradient of an input of `size = (height, width)`, given the output's gradient `g`.

    At stride 2, the gradients of even and odd rows and columns are computed separately, each from the taps that reach
    them, and then interleaved. This avoids products with the zeros between strided values.
    """
    kernel32, g32 = as_float32(kernel), as_float32(g)
    widths = [padding_widths(n, k, stride, dilation, padding) for n, k in zip(size, kernel.shape[:2], strict=True)]
    counts = [output_size(n + before, stride) for n, (before, _) in zip(size, widths, strict=True)]
    reach = [dilation * (k - 1) // stride for k in kernel.shape[:2]]
    edges = [(0, 0)] * 4
    for axis, margin in zip(spatial_axes(data_format), reach, strict=True):
        edges[axis] = (margin, margin + 1)
    padded_g = materialize(ops.pad(g32, edges))
    phases = [
        [_phase(padded_g, kernel32, (p, q), counts, reach, stride, dilation, data_format) for q in range(stride)]
        for p in range(stride)
    ]
    row_axis, column_axis = spatial_axes(data_format)
    batch, _, _, channels = split_shape(ops.shape(g), data_format)
    if stride > 1:
        lines = [ops.stack(line, column_axis + 1) for line in phases]
        shape = join_shape(batch, counts[0], counts[1] * stride, channels, data_format)
        lines = [ops.reshape(line, shape) for line in lines]
        shape = join_shape(batch, counts[0] * stride, counts[1] * stride, channels, data_format)
        full = ops.reshape(ops.stack(lines, row_axis + 1), shape)
    else:
        full = phases[0][0]
    slices = [slice(None)] * 4
    for axis, (before, _), n in zip((row_axis, column_axis), widths, size, strict=True):
        slices[axis] = slice(before, before + n)
    return ops.cast(full[tuple(slices)], g.dtype)


def _phase(padded_g, kernel, phase, counts, reach, stride, dilation, data_format):
    """Return every `stride`-th row and column of the padded input's gradient, starting at `phase = (row, column)`."""
    total = None
    for i, j in _taps(kernel.shape):
        offsets = [tap * dilation - p for tap, p in zip((i, j), phase, strict=True)]
        if any(offset % stride for offset in offsets):  # This tap never reads these rows and columns.
            continue
        start = [r - offset // stride for r, offset in zip(reach, offsets, strict=True)]
        term = _window(padded_g, start, counts, 1, data_format) * along_channels(kernel[i, j, :, 0], data_format)
        total = term if total is None else total + term
    if total is None:  # A 1×1 kernel at stride 2 never reads the odd rows and columns.
        total = ops.zeros_like(_window(padded_g, (0, 0), counts, 1, data_format))
    return total


def kernel_gradient(x, g, kernel_size, stride, dilation, padding, data_format, materialize=identity):
    """Return the gradient of a kernel of `kernel_size = (rows, columns)`, in float32, or float64 for float64 inputs.

    A loop over the output's rows adds up the products of each tap. The batch axis is reduced only after the loop:
    a sum over images inside the loop would need all of them on one device.
    """
    x, g = as_float32(x), as_float32(g)
    batch, rows, columns, channels = split_shape(ops.shape(g), data_format)
    padded = materialize(_padded(x, kernel_size, stride, dilation, padding, data_format))
    row_axis, column_axis = spatial_axes(data_format)
    taps = _taps(kernel_size)

    def add_row(row, sums):
        line = _rows(g, row, 1, row_axis)
        lines = _rows(padded, row * stride, dilation * (kernel_size[0] - 1) + 1, row_axis)
        return tuple(
            total + _window(lines, (i * dilation, j * dilation), (1, columns), stride, data_format) * line
            for total, (i, j) in zip(sums, taps, strict=True)
        )

    shape = join_shape(batch, 1, columns, channels, data_format)
    sums = ops.fori_loop(0, rows, add_row, tuple(ops.zeros(shape, g.dtype) for _ in taps))
    sums = [ops.sum(total, (0, row_axis, column_axis)) for total in sums]
    return ops.reshape(ops.stack(sums), (*kernel_size, channels, 1))


def _rows(x, first, count, axis):
    start, shape = [0] * 4, list(ops.shape(x))
    start[axis], shape[axis] = first, count
    return ops.slice(x, start, shape)


def _padded(x, kernel_size, stride, dilation, padding, data_format):
    _, height, width, _ = split_shape(ops.shape(x), data_format)
    edges = [(0, 0)] * 4
    for axis, size, taps in zip(spatial_axes(data_format), (height, width), kernel_size, strict=True):
        edges[axis] = padding_widths(size, taps, stride, dilation, padding)
    return ops.pad(x, edges)


def _taps(kernel_size):
    return [(i, j) for i in range(kernel_size[0]) for j in range(kernel_size[1])]


def _window(x, start, counts, stride, data_format):
    """Return `counts` rows and columns of `x`, beginning at `start`, in steps of `stride`."""
    slices = [slice(None)] * 4
    for axis, first, count in zip(spatial_axes(data_format), start, counts, strict=True):
        slices[axis] = slice(first, first + (count - 1) * stride + 1, stride)
    return x[tuple(slices)]
