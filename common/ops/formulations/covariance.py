"""Pointwise convolution with batch norm, whose statistics are computed from the convolution's input.

A pointwise convolution is a product `y = x W` at every pixel, so the mean of `y` is `mean(x) W`, and its variance is
the diagonal of `Wᵀ cov(x) W`. If `x` has few channels and `y` has many, as at the start of an inverted bottleneck,
computing the covariance of `x` costs much less than reading `y` twice. The normalization is folded into the weights, so
the unnormalized output isn't kept for the backward pass. Automatic
differentiation computes the gradients from `x` instead.
"""

import keras
from keras import ops

from mobilenet_common.ops.formulations.keras_default import mean_over

_MIN_EXPANSION = 2
# Above these numbers of input channels, the arithmetic costs more than the memory traffic that it saves. The limit is
# higher in programs that XLA compiles.
MAX_CHANNELS, MAX_CHANNELS_XLA = 64, 256


def formulation(pointwise, normalize_batch, max_channels):
    """Return a `pointwise_normalize_batch` that uses the statistics of the input if that is faster.

    Args:
        pointwise: Fastest formulation of `pointwise` on the platform.
        normalize_batch: Fastest formulation of `normalize_batch` on the platform.
        max_channels: Number of input channels up to which the statistics of the input are used. 0: never, as on a GPU,
            where this isn't faster.
    """

    def pointwise_normalize_batch(x, kernel, gamma, beta, epsilon, activation, data_format):
        if not is_faster(x, kernel, data_format, max_channels):
            y = pointwise(x, kernel, None, 1, 1, "same", data_format)
            return normalize_batch(y, gamma, beta, epsilon, activation, data_format)
        kernel, bias, mean, variance = fold(x, kernel, gamma, beta, epsilon)
        return activation(pointwise(x, kernel, bias, 1, 1, "same", data_format)), mean, variance

    return pointwise_normalize_batch


def is_faster(x, kernel, data_format, max_channels):
    """Return whether using the statistics of `x` is faster.

    This is true in float32 and channels last, with at most `max_channels` input channels and at least `_MIN_EXPANSION`
    times as many output channels.
    """
    channels, filters = kernel.shape[2:]
    is_float32 = keras.backend.standardize_dtype(x.dtype) == "float32"
    return (
        is_float32
        and data_format == "channels_last"
        and _MIN_EXPANSION * channels <= filters
        and channels <= max_channels
    )


def fold(x, kernel, gamma, beta, epsilon):
    """Fold the batch norm of a pointwise convolution of `x`, channels last, into its kernel.

    Returns:
        `(kernel, bias, mean, variance)`: the kernel and bias of a pointwise convolution whose output is normalized, and
        the mean and biased variance of the output of the original convolution.
    """
    weight = ops.convert_to_tensor(kernel)[0, 0]
    center = ops.reshape(mean_over(x, (0, 1, 2)), (-1,))
    rows = ops.reshape(x - center, (-1, weight.shape[0]))
    covariance = ops.matmul(ops.transpose(rows), rows) / ops.cast(ops.shape(rows)[0], "float32")
    mean = ops.matmul(center[None], weight)[0]
    variance = ops.maximum(ops.sum(weight * ops.matmul(covariance, weight), 0), 0.0)
    scale = ops.convert_to_tensor(gamma) * ops.rsqrt(variance + epsilon)
    return (weight * scale)[None, None], beta - mean * scale, mean, variance
