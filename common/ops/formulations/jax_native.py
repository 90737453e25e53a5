"""Formulations for JAX. XLA compiles every operation, so only the form in which a sum is written matters."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from mobilenet_common.ops.formulations import covariance, shifted
from mobilenet_common.ops.formulations.keras_default import add_bias, normalize_batch
from mobilenet_common.ops.geometry import padding_widths
from mobilenet_common.ops.layout import split_shape

_LAYOUTS = {"channels_last": ("NHWC", "HWIO", "NHWC"), "channels_first": ("NCHW", "HWIO", "NCHW")}


def platform():
    """Return JAX's default platform: `"cpu"`, `"gpu"` or `"tpu"`."""
    device = getattr(jax.config, "jax_default_device", None)
    return getattr(device, "platform", device) or jax.default_backend()


def dense(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a full convolution, with the padding done by the convolution itself."""
    if padding == "same" or stride == 1:
        widths = "SAME"
    else:
        widths = [padding_widths(None, size, stride, dilation, padding) for size in kernel.shape[:2]]
    y = lax.conv_general_dilated(
        x,
        jnp.asarray(kernel, x.dtype),
        (stride, stride),
        widths,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_LAYOUTS[data_format],
    )
    return add_bias(y, bias, data_format)


def pointwise(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a 1×1 convolution as a matrix product over the channels."""
    kernel = jnp.asarray(kernel, x.dtype)[0, 0]
    if data_format == "channels_last":
        y = x[:, ::stride, ::stride] @ kernel
    else:
        y = jnp.einsum("nchw,cf->nfhw", x[:, :, ::stride, ::stride], kernel)
    return add_bias(y, bias, data_format)


pointwise_normalize_batch = covariance.formulation(pointwise, normalize_batch, covariance.MAX_CHANNELS_XLA)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _shifted_depthwise(x, kernel, stride, dilation, padding, data_format):
    return shifted.forward(x, kernel, stride, dilation, padding, data_format, lax.optimization_barrier)


def _forward(x, kernel, stride, dilation, padding, data_format):
    y = shifted.forward(x, kernel, stride, dilation, padding, data_format, lax.optimization_barrier)
    return y, (x, kernel)


def _backward(stride, dilation, padding, data_format, saved, g):
    x, kernel = saved
    options = (stride, dilation, padding, data_format, lax.optimization_barrier)
    size = split_shape(x.shape, data_format)[1:3]
    kernel_gradient = shifted.kernel_gradient(x, g, kernel.shape[:2], *options)
    return shifted.input_gradient(g, kernel, size, *options), kernel_gradient.astype(kernel.dtype)


_shifted_depthwise.defvjp(_forward, _backward)
# `jit` compiles all slices of an eager call into one program. `inline=True` leaves programs that trace this function
# unchanged.
_jitted_shifted_depthwise = jax.jit(_shifted_depthwise, static_argnums=(2, 3, 4, 5), inline=True)


def shifted_depthwise(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a depthwise convolution, in a form that XLA's CPU backend compiles to a single loop."""
    y = _jitted_shifted_depthwise(x, jnp.asarray(kernel, x.dtype), stride, dilation, padding, data_format)
    return add_bias(y, bias, data_format)
