"""Pooling and upsampling of feature maps."""

import numpy as np
from keras import ops

from mobilenet_common.ops.convolutions import depthwise_convolution
from mobilenet_common.ops.formulations import fastest
from mobilenet_common.ops.formulations.keras_default import as_float32
from mobilenet_common.ops.layout import channel_axis, join_shape, spatial_axes, split_shape


def mean_pool(x, data_format):
    """Return the mean over all positions; the two spatial axes are kept with size 1."""
    return fastest("mean_over", data_format)(x, spatial_axes(data_format))


def average_pool(x, window, data_format, *, partial=False):
    """Return the means over non-overlapping patches of size `window = (rows, columns)`.

    Rows and columns that don't fill a patch are dropped. With `partial`, they form smaller patches instead.
    """
    if not partial:
        return _patch_means(x, window, data_format)
    _, height, width, _ = split_shape(ops.shape(x), data_format)
    ones = ops.ones(join_shape(1, height, width, 1, data_format), dtype=x.dtype)
    rows, columns = spatial_axes(data_format)
    edges = [(0, 0)] * 4
    # Avoid remainders of negative numbers, which differ in ONNX.
    below, right = ((size - n % size) % size for n, size in zip((height, width), window, strict=True))
    edges[rows], edges[columns] = (0, below), (0, right)
    sums, counts = (_patch_means(ops.pad(y, edges), window, data_format) for y in (x, ones))
    return sums / counts


def _patch_means(x, window, data_format):
    """Return the means over whole patches, summed in float32: TensorFlow's and JAX's half-precision sums overflow."""
    y = ops.average_pool(as_float32(x), window, strides=window, padding="valid", data_format=data_format)
    return ops.cast(y, x.dtype)


def blur_pool(x, data_format, padding="symmetric"):
    """Halve a feature map with a 3×3 binomial filter at stride 2, zero-padded (Zhang, 2019)."""
    channels = x.shape[channel_axis(data_format)]
    row = np.array([0.25, 0.5, 0.25], "float32")
    kernel = np.repeat(np.outer(row, row)[:, :, None, None], channels, axis=2)
    return depthwise_convolution(
        x, ops.convert_to_tensor(kernel, dtype=x.dtype), stride=2, padding=padding, data_format=data_format
    )


def upsample(x, factors, data_format):
    """Enlarge a feature map by integer `factors = (rows, columns)`, interpolating bilinearly between pixel centers.

    Shifts are used instead of a resize operation, so that unknown sizes work on every backend.
    """
    for axis, factor in zip(spatial_axes(data_format), factors, strict=True):
        if factor > 1:
            x = _upsample_axis(x, axis, factor)
    return x


def _upsample_axis(x, axis, factor):
    size = ops.shape(x)[axis]
    full = [slice(None)] * 4
    first, last, up_to_last, from_second = (list(full) for _ in range(4))
    first[axis], last[axis] = slice(0, 1), slice(size - 1, size)
    up_to_last[axis], from_second[axis] = slice(0, size - 1), slice(1, size)
    previous = ops.concatenate([x[tuple(first)], x[tuple(up_to_last)]], axis)
    following = ops.concatenate([x[tuple(from_second)], x[tuple(last)]], axis)
    phases = []
    for phase in range(factor):
        offset = (phase + 0.5) / factor - 0.5  # from the old pixel's center to the new pixel's center
        neighbor = following if offset > 0 else previous
        phases.append(x * (1 - abs(offset)) + neighbor * abs(offset))
    shape = list(ops.shape(x))
    shape[axis] = size * factor
    return ops.reshape(ops.stack(phases, axis + 1), shape)
