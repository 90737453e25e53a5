"""PyTorch: its own kernels on permuted views, which copy neither the images nor the kernels.

A channels-last tensor, permuted to PyTorch's axes, is what PyTorch calls channels-last memory, and its convolution,
batch norm and pooling run on that as it is.
"""

import keras
import torch
from torch.nn import functional

from mobilenet_common.internals.torch_internals import is_jit_tracing, is_view
from mobilenet_common.ops.formulations import covariance, keras_default
from mobilenet_common.ops.geometry import padding_widths


def platform():
    """Return `"traced"` inside `torch.export`, `torch.onnx.export` and `torch.jit.trace`, else `"any"`.

    PyTorch itself chooses by the device of each tensor.
    """
    return "traced" if is_jit_tracing() or torch.compiler.is_exporting() else "any"


def dense(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a full convolution with its padding inside, except where that is one-sided."""
    return _convolve(x, _value(kernel).permute(3, 2, 0, 1), bias, 1, stride, dilation, padding, data_format)


def pointwise(x, kernel, bias, stride, dilation, padding, data_format, finish=None):
    """Return a 1×1 convolution; for few pixels on a CPU a matrix product, which needs no preparations.

    `finish` is applied to its output, which is nobody's view.
    """
    batch, height, width, _ = x.shape
    few = batch == 1 or batch * height * width <= _FEW_PIXELS * stride * stride
    if data_format == "channels_first" or not few or x.device.type != "cpu":
        weight = _value(kernel).permute(3, 2, 0, 1)
        return _convolve(x, weight, bias, 1, stride, dilation, padding, data_format, finish)
    if stride > 1:
        x = x[:, ::stride, ::stride]
    bias = None if bias is None else _value(bias).to(x.dtype)
    y = functional.linear(x, _value(kernel)[0, 0].to(x.dtype).t(), bias)
    return y if finish is None else finish(y)


_FEW_PIXELS = 4096


def depthwise(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a convolution of each channel with its own kernel."""
    weight = _value(kernel).permute(2, 3, 0, 1)
    return _convolve(x, weight, bias, weight.shape[0], stride, dilation, padding, data_format)


def _convolve(x, weight, bias, groups, stride, dilation, padding, data_format, finish=None):
    x = _channels_first(x, data_format)
    widths = [
        padding_widths(n, k, stride, dilation, padding) for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)
    ]
    (top, bottom), (left, right) = widths
    if top != bottom or left != right:  # PyTorch's convolution pads both sides alike
        if groups == 1 or dilation > 1:
            x = functional.pad(x, (0, right - left, 0, bottom - top))
        else:
            # One row of zero taps more, before the others, makes a depthwise kernel see the same pixels under a padding
            # that is alike on both sides: cheaper than writing the padded image.
            weight = functional.pad(weight, (right - left, 0, bottom - top, 0))
            top, left = bottom, right
    bias = None if bias is None else _value(bias).to(x.dtype)
    y = functional.conv2d(x, weight.to(x.dtype), bias, stride, (top, left), dilation, groups)
    return _back(y if finish is None else finish(y), data_format)


def normalize(x, mean, variance, gamma, beta, epsilon, activation, data_format, overwrite):
    """Return batch norm with given statistics, and an activation."""
    mean, variance, gamma, beta = _value(mean), _value(variance), _value(gamma), _value(beta)
    if overwrite and x.dtype == torch.float32 and not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
        # A large new tensor costs more than the arithmetic, so the result takes the input's place. (Compiled, batch
        # norm is a loop of its own anyway, and its square root would be taken at every pixel.)
        scale = gamma * torch.rsqrt(variance + epsilon)
        offset = torch.addcmul(beta, mean, scale, value=-1)
        if data_format == "channels_first":
            scale, offset = scale[:, None, None], offset[:, None, None]
        return activate(torch.addcmul(offset, x, scale, out=x), activation, True)
    x = _channels_first(x, data_format)
    y = torch.batch_norm(x, gamma, beta, mean, variance, False, 0.0, epsilon, _CUDNN)
    return _back(activate(y, activation, True), data_format)


def normalize_batch(x, gamma, beta, epsilon, activation, data_format):
    """Return batch norm with the batch's own statistics, and an activation, as `(y, mean, biased variance)`."""
    count = x.numel() // gamma.shape[0]
    if count == 1:  # PyTorch's unbiased variance of one number is not a number
        return keras_default.normalize_batch(x, gamma, beta, epsilon, activation, data_format)
    gamma, beta = _value(gamma), _value(beta)
    x = _channels_first(x, data_format)
    if activation in _LIMITS and x.device.type == "cpu" and not torch.compiler.is_compiling():
        y, mean, variance, *_ = _BatchNormReLU.apply(x, gamma, beta, epsilon, _LIMITS[activation])
    else:
        mean, variance = torch.zeros_like(gamma), torch.zeros_like(gamma)
        # Momentum 1 puts the batch's own mean and unbiased variance into the two.
        y = torch.batch_norm(x, gamma, beta, mean, variance, True, 1.0, epsilon, _CUDNN)
        y = activate(y, activation, True)
    return _back(y, data_format), mean, variance * ((count - 1) / count)


class _BatchNormReLU(torch.autograd.Function):
    """Batch norm and a ReLU up to a limit, with one large tensor less in memory than the two have as two operations.

    The ReLU overwrites the normalized tensor, which neither gradient needs.
    """

    @staticmethod
    def forward(x, gamma, beta, epsilon, limit):
        mean, variance = torch.zeros_like(gamma), torch.zeros_like(gamma)
        y, *saved = torch.native_batch_norm(x, gamma, beta, mean, variance, True, 1.0, epsilon)
        y = torch.relu_(y) if limit is None else functional.hardtanh_(y, 0.0, limit)
        return y, mean, variance, *saved

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, gamma, _, ctx.epsilon, ctx.limit = inputs
        y, *statistics = output
        ctx.mark_non_differentiable(*statistics)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, gamma, y, *statistics[2:])

    @staticmethod
    def backward(ctx, *grad_outputs):
        g = grad_outputs[0]
        if g is None:
            return None, None, None, None, None
        x, gamma, y, mean, inverse = ctx.saved_tensors
        g = _relu_gradient(g, y, ctx.limit)
        wanted = ctx.needs_input_grad[:3]
        gradients = torch.ops.aten.native_batch_norm_backward(
            g, x, gamma, None, None, mean, inverse, True, ctx.epsilon, wanted
        )
        return *gradients, None, None


_LIMITS = {keras.activations.relu: None, keras.activations.relu6: 6.0}


def pointwise_normalize_batch(x, kernel, gamma, beta, epsilon, activation, data_format):
    """Return a 1×1 convolution, batch norm with the batch's statistics, and an activation."""
    if x.device.type != "cpu" or not covariance.pays(x, kernel, data_format, covariance.MOST_CHANNELS):
        y = pointwise(x, kernel, None, 1, 1, "same", data_format)
        return normalize_batch(y, gamma, beta, epsilon, activation, data_format)
    kernel, bias, mean, variance = covariance.fold(x, _value(kernel), _value(gamma), _value(beta), epsilon)

    def finish(y):
        if activation in _LIMITS and not torch.compiler.is_compiling():
            return _OverwritingReLU.apply(y, _LIMITS[activation])
        return activate(y, activation, True)

    return pointwise(x, kernel, bias, 1, 1, "same", data_format, finish), mean, variance


class _OverwritingReLU(torch.autograd.Function):
    """A ReLU up to a limit in the place of its input, which for ReLU6 PyTorch would copy before."""

    @staticmethod
    def forward(x, limit):
        return torch.relu_(x) if limit is None else functional.hardtanh_(x, 0.0, limit)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.limit = inputs
        ctx.mark_dirty(x)
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, *grad_outputs):
        (y,) = ctx.saved_tensors
        return _relu_gradient(grad_outputs[0], y, ctx.limit), None


def _relu_gradient(g, y, limit):
    if limit is None:
        return torch.ops.aten.threshold_backward(g, y, 0.0)
    return torch.ops.aten.hardtanh_backward(g, y, 0.0, limit)


def activate(x, activation, overwrite):
    """Return `activation(x)` by PyTorch's own kernel; in the place of `x` where that may be overwritten.

    A ReLU's gradient is known from its result; the others need their input in the backward pass. Changing a view there
    would cost a copy.
    """
    new, in_place, from_result = _ACTIVATIONS.get(activation, (activation, None, False))
    if overwrite and in_place is not None and (not torch.is_grad_enabled() or (from_result and not is_view(x))):
        return in_place(x)
    return new(x)


_ACTIVATIONS = {  # by the function of Keras: a new tensor, in place, whether the result is enough for the gradient
    keras.activations.linear: (lambda x: x, None, False),
    keras.activations.relu: (torch.relu, torch.relu_, True),
    keras.activations.relu6: (functional.relu6, lambda x: functional.hardtanh_(x, 0.0, 6.0), True),
    keras.activations.silu: (functional.silu, lambda x: functional.silu(x, inplace=True), False),
    keras.activations.hard_sigmoid: (functional.hardsigmoid, lambda x: functional.hardsigmoid(x, inplace=True), False),
    keras.activations.hard_silu: (functional.hardswish, lambda x: functional.hardswish(x, inplace=True), False),
}


def attend(query, key, value, dropout):
    """Return scaled dot-product attention without its matrix of weights in memory."""
    if dropout is not None:
        return keras_default.attend(query, key, value, dropout)
    return functional.scaled_dot_product_attention(query, key, value)


_CUDNN = torch.backends.cudnn.enabled


def _value(variable):
    """Return the tensor of a Keras variable, in the type that the autocast scope asks for."""
    return getattr(variable, "value", variable)


def _channels_first(x, data_format):
    return x.permute(0, 3, 1, 2) if data_format == "channels_last" else x


def _back(y, data_format):
    return y.permute(0, 2, 3, 1) if data_format == "channels_last" else y
