"""Batch norm of a pointwise convolution's output from the statistics of its input.

A pointwise convolution is a product `y = x W` for every pixel, so that the mean of `y` is `mean(x) W`, and its variance
the diagonal of `Wᵀ cov(x) W`. Where the convolution makes many channels of few, as every inverted bottleneck begins,
the covariance of the few costs much less than reading the many twice. The normalization then goes into the weights, so
that nothing before it is kept for the backward pass, and the gradients follow by the chain rule, again in terms of `x`.
"""

import keras
from keras import ops

from mobilenet_common.ops.formulations.keras_default import mean_over

_LEAST_EXPANSION = 2
# With more channels the arithmetic outweighs the memory's traffic; where XLA compiles, later.
MOST_CHANNELS, MOST_COMPILED = 64, 256


def formulation(pointwise, normalize_batch, most):
    """Return `keras_default.pointwise_normalize_batch` by way of the statistics of the input, where that pays.

    Args:
        pointwise: The convolution as it is fastest here.
        normalize_batch: Likewise.
        most: Input channels up to which it pays; 0 for never, as on a GPU, which has no such traffic to save.
    """

    def pointwise_normalize_batch(x, kernel, gamma, beta, epsilon, activation, data_format):
        if not pays(x, kernel, data_format, most):
            y = pointwise(x, kernel, None, 1, 1, "same", data_format)
            return normalize_batch(y, gamma, beta, epsilon, activation, data_format)
        kernel, bias, mean, variance = fold(x, kernel, gamma, beta, epsilon)
        return activation(pointwise(x, kernel, bias, 1, 1, "same", data_format)), mean, variance

    return pointwise_normalize_batch


def pays(x, kernel, data_format, most):
    """Return whether to take the statistics from `x`: in float32, for up to `most` channels that at least double."""
    channels, filters = kernel.shape[2:]
    single = keras.backend.standardize_dtype(x.dtype) == "float32"
    return single and data_format == "channels_last" and _LEAST_EXPANSION * channels <= filters and channels <= most


def fold(x, kernel, gamma, beta, epsilon):
    """Return what makes the convolution of `x`, channels last, come out normalized.

    Returns:
        `(kernel, bias, mean, variance)`: a pointwise kernel and a bias in place of the convolution and its batch norm,
        and the mean and biased variance that the convolution alone would give.
    """
    weight = ops.convert_to_tensor(kernel)[0, 0]
    center = ops.reshape(mean_over(x, (0, 1, 2)), (-1,))
    rows = ops.reshape(x - center, (-1, weight.shape[0]))
    covariance = ops.matmul(ops.transpose(rows), rows) / ops.cast(ops.shape(rows)[0], "float32")
    mean = ops.matmul(center[None], weight)[0]
    variance = ops.maximum(ops.sum(weight * ops.matmul(covariance, weight), 0), 0.0)
    scale = ops.convert_to_tensor(gamma) * ops.rsqrt(variance + epsilon)
    return (weight * scale)[None, None], beta - mean * scale, mean, variance
