"""Formulations for TensorFlow: fused batch norm, built-in padding, and shifted convolutions under XLA."""

import functools
from typing import Any

import tensorflow as tf

from mobilenet_common.internals.tensorflow_internals import is_traced_for_xla
from mobilenet_common.ops.formulations import covariance, keras_default, shifted
from mobilenet_common.ops.layout import split_shape


def platform():
    """Return how the function that is being traced will run, such as `"cpu kernels"` or `"cpu compiled by XLA"`."""
    device = "cpu" if _has_only_cpus() else "accelerator"
    return f"{device} compiled by XLA" if is_traced_for_xla() else f"{device} kernels"


@functools.cache
def _has_only_cpus():
    return {device.device_type for device in tf.config.list_logical_devices()} <= {"CPU"}


def dense(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a full convolution, channels last, with the padding done by the convolution itself."""
    if dilation > 1:  # TensorFlow's CPU kernel has no gradient for this case.
        return keras_default.dense(x, kernel, bias, stride, dilation, padding, data_format)
    y = tf.nn.conv2d(x, kernel, stride, _padding(kernel, stride, dilation, padding))
    return _add_bias(y, bias)


def depthwise(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a depthwise convolution, channels last, with the padding done by the convolution itself if possible."""
    if dilation > 1:  # TensorFlow rearranges the whole map for dilation, and Keras's code does this best.
        return keras_default.depthwise(x, kernel, bias, stride, dilation, padding, data_format)
    padding = _padding(kernel, stride, dilation, padding)
    if bias is not None and padding != "SAME":
        # On CPUs on which TensorFlow uses oneDNN, its graph optimizer fuses the bias into the convolution and loses the
        # explicit padding, which crashes the process.
        x, padding = tf.pad(x, padding), "VALID"
    return _add_bias(tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), padding), bias)


def _add_bias(x, bias):
    # The graph optimizer can fuse `bias_add` into the convolution.
    return x if bias is None else tf.nn.bias_add(x, bias)


def _padding(kernel, stride, dilation, padding) -> Any:
    size = kernel.shape[0]
    if padding == "same" or stride == 1 or size == 1:  # At stride 1, both paddings are identical.
        return "SAME"
    before = dilation * (size - 1) // 2
    return [[0, 0], [before, before], [before, before], [0, 0]]


def pointwise_product(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a 1×1 convolution, channels last, as a matrix product over the channels."""
    return _add_bias(tf.tensordot(x[:, ::stride, ::stride], tf.convert_to_tensor(kernel)[0, 0], 1), bias)


def shifted_depthwise(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a depthwise convolution with custom gradients, in a form that XLA's CPU backend compiles to one loop."""
    options = (stride, dilation, padding, data_format)
    _, height, width, _ = split_shape(tf.shape(x) if None in x.shape[1:] else x.shape, data_format)
    kernel_size = kernel.shape[:2]

    # The three functions are the derivatives of one trilinear form, so the gradients of each are the other two.
    @tf.custom_gradient
    def forward(x, kernel):
        return shifted.forward(x, kernel, *options), lambda g: (input_gradient(g, kernel), kernel_gradient(x, g))

    @tf.custom_gradient
    def input_gradient(g, kernel):
        y = shifted.input_gradient(g, kernel, (height, width), *options)
        return y, lambda dy: (forward(dy, kernel), kernel_gradient(dy, g))

    @tf.custom_gradient
    def kernel_gradient(x, g):
        y = tf.cast(shifted.kernel_gradient(x, g, kernel_size, *options), g.dtype)
        return y, lambda dy: (input_gradient(g, dy), forward(x, dy))

    return keras_default.add_bias(forward(x, tf.convert_to_tensor(kernel)), bias, data_format)


# Input dtypes of the fused batch norm, whose statistics are float32.
_FUSED_DTYPES = (tf.float32, tf.bfloat16, tf.float16)


def normalize(x, mean, variance, gamma, beta, epsilon, activation, data_format, overwrite):
    """Return batch norm with given statistics, channels last, followed by an activation."""
    if x.dtype not in _FUSED_DTYPES:
        return keras_default.normalize(x, mean, variance, gamma, beta, epsilon, activation, data_format, overwrite)
    fused = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
    )
    return activation(fused.y)


def normalize_batch(x, gamma, beta, epsilon, activation, data_format):
    """Return `(y, mean, biased variance)`: channels-last batch norm with the batch's statistics, and an activation."""
    if x.dtype not in _FUSED_DTYPES:
        return keras_default.normalize_batch(x, gamma, beta, epsilon, activation, data_format)
    empty = tf.zeros([0])
    fused = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=empty, variance=empty, epsilon=epsilon, is_training=True
    )
    count = tf.cast(tf.size(x) / tf.shape(x)[-1], "float32")
    return activation(fused.y), fused.batch_mean, fused.batch_variance * ((count - 1) / count)


pointwise_normalize_batch = covariance.formulation(dense, normalize_batch, max_channels=0)
cpu_pointwise_normalize_batch = covariance.formulation(dense, normalize_batch, covariance.MAX_CHANNELS)
compiled_pointwise_normalize_batch = covariance.formulation(
    pointwise_product, keras_default.normalize_batch, covariance.MAX_CHANNELS_XLA
)
