"""Formulations for PyTorch: its own operations on permuted views, which copy neither images nor kernels.

A channels-last tensor, permuted to PyTorch's order of axes, has the memory format that PyTorch calls channels last.
PyTorch's convolution, batch norm and pooling run on this format directly.
"""

import keras
import torch
from torch.nn import functional

from mobilenet_common.internals.torch_internals import is_jit_tracing, is_view
from mobilenet_common.ops.formulations import covariance, keras_default
from mobilenet_common.ops.geometry import padding_widths


def platform():
    """Return `"traced"` inside `torch.export`, `torch.onnx.export` and `torch.jit.trace`, else `"any"`.

    The device makes no difference here: PyTorch selects the kernel by the device of each tensor.
    """
    return "traced" if is_jit_tracing() or torch.compiler.is_exporting() else "any"


def dense(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a full convolution, which does the padding itself unless the padding is asymmetric."""
    return _convolve(x, _value(kernel).permute(3, 2, 0, 1), bias, 1, stride, dilation, padding, data_format)


def pointwise(x, kernel, bias, stride, dilation, padding, data_format, epilogue=None):
    """Return a 1×1 convolution; for one image or few pixels on a CPU, as a matrix product, which has less overhead.

    `epilogue`, if it isn't None, is applied to the output before a permutation turns the output into a view.
    """
    batch, height, width, _ = x.shape
    is_small = batch == 1 or batch * height * width <= _FEW_PIXELS * stride * stride
    if data_format == "channels_first" or not is_small or x.device.type != "cpu":
        weight = _value(kernel).permute(3, 2, 0, 1)
        return _convolve(x, weight, bias, 1, stride, dilation, padding, data_format, epilogue)
    if stride > 1:
        x = x[:, ::stride, ::stride]
    bias = None if bias is None else _value(bias).to(x.dtype)
    y = functional.linear(x, _value(kernel)[0, 0].to(x.dtype).t(), bias)
    return y if epilogue is None else epilogue(y)


_FEW_PIXELS = 4096


def depthwise(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a depthwise convolution."""
    weight = _value(kernel).permute(2, 3, 0, 1)
    return _convolve(x, weight, bias, weight.shape[0], stride, dilation, padding, data_format)


def _convolve(x, weight, bias, groups, stride, dilation, padding, data_format, epilogue=None):
    x = _to_channels_first(x, data_format)
    widths = [
        padding_widths(n, k, stride, dilation, padding) for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)
    ]
    (top, bottom), (left, right) = widths
    if top != bottom or left != right:  # PyTorch's convolution pads both sides equally.
        if groups == 1 or dilation > 1:
            x = functional.pad(x, (0, right - left, 0, bottom - top))
        else:
            # A row and a column of zeros in front of a depthwise kernel let it read the same pixels with equal padding
            # on both sides. This is cheaper than writing a padded image.
            weight = functional.pad(weight, (right - left, 0, bottom - top, 0))
            top, left = bottom, right
    bias = None if bias is None else _value(bias).to(x.dtype)
    y = functional.conv2d(x, weight.to(x.dtype), bias, stride, (top, left), dilation, groups)
    return _from_channels_first(y if epilogue is None else epilogue(y), data_format)


def normalize(x, mean, variance, gamma, beta, epsilon, activation, data_format, overwrite):
    """Return batch norm with given statistics, followed by an activation."""
    mean, variance, gamma, beta = _value(mean), _value(variance), _value(gamma), _value(beta)
    if overwrite and x.dtype == torch.float32 and not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
        # Overwrite the input, because a large new tensor costs more than the arithmetic. Compiled code doesn't need
        # this: batch norm becomes a single loop there, and this form would compute the square root at every pixel.
        scale = gamma * torch.rsqrt(variance + epsilon)
        offset = torch.addcmul(beta, mean, scale, value=-1)
        if data_format == "channels_first":
            scale, offset = scale[:, None, None], offset[:, None, None]
        return activate(torch.addcmul(offset, x, scale, out=x), activation, True)
    x = _to_channels_first(x, data_format)
    y = torch.batch_norm(x, gamma, beta, mean, variance, False, 0.0, epsilon, _CUDNN)
    return _from_channels_first(activate(y, activation, True), data_format)


def normalize_batch(x, gamma, beta, epsilon, activation, data_format):
    """Return `(y, mean, biased variance)`: batch norm with the batch's statistics, followed by an activation."""
    count = x.numel() // gamma.shape[0]
    if count == 1:  # PyTorch's unbiased variance of a single value is NaN.
        return keras_default.normalize_batch(x, gamma, beta, epsilon, activation, data_format)
    gamma, beta = _value(gamma), _value(beta)
    x = _to_channels_first(x, data_format)
    if activation in _RELU_LIMITS and x.device.type == "cpu" and not torch.compiler.is_compiling():
        y, mean, variance, *_ = _BatchNormReLU.apply(x, gamma, beta, epsilon, _RELU_LIMITS[activation])
    else:
        mean, variance = torch.zeros_like(gamma), torch.zeros_like(gamma)
        # With momentum 1, PyTorch writes the batch's mean and unbiased variance into these two tensors.
        y = torch.batch_norm(x, gamma, beta, mean, variance, True, 1.0, epsilon, _CUDNN)
        y = activate(y, activation, True)
    return _from_channels_first(y, data_format), mean, variance * ((count - 1) / count)


class _BatchNormReLU(torch.autograd.Function):
    """Batch norm, then a ReLU with an optional upper limit.

    The ReLU overwrites the normalized tensor, which isn't needed for either gradient. Two separate operations would
    keep one more large tensor in memory.
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
        output_mask = ctx.needs_input_grad[:3]
        gradients = torch.ops.aten.native_batch_norm_backward(
            g, x, gamma, None, None, mean, inverse, True, ctx.epsilon, output_mask
        )
        return *gradients, None, None


# {ReLU activation: upper limit, or None for no limit}
_RELU_LIMITS = {keras.activations.relu: None, keras.activations.relu6: 6.0}


def pointwise_normalize_batch(x, kernel, gamma, beta, epsilon, activation, data_format):
    """Return `normalize_batch` of the output of a 1×1 convolution."""
    if x.device.type != "cpu" or not covariance.is_faster(x, kernel, data_format, covariance.MAX_CHANNELS):
        y = pointwise(x, kernel, None, 1, 1, "same", data_format)
        return normalize_batch(y, gamma, beta, epsilon, activation, data_format)
    kernel, bias, mean, variance = covariance.fold(x, _value(kernel), _value(gamma), _value(beta), epsilon)

    def epilogue(y):
        if activation in _RELU_LIMITS and not torch.compiler.is_compiling():
            return _InPlaceReLU.apply(y, _RELU_LIMITS[activation])
        return activate(y, activation, True)

    return pointwise(x, kernel, bias, 1, 1, "same", data_format, epilogue), mean, variance


class _InPlaceReLU(torch.autograd.Function):
    """ReLU with an optional upper limit that overwrites its input; PyTorch's own ReLU6 would copy the input first."""

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
    """Return `activation(x)`, computed by PyTorch's own kernel, and in place if `overwrite` allows it.

    With gradients enabled, only ReLUs run in place, because their gradient can be computed from their output; other
    activations need their input in the backward pass. Views aren't overwritten then either: this would cost a copy.
    """
    function, in_place, needs_only_output = _ACTIVATIONS.get(activation, (activation, None, False))
    if overwrite and in_place is not None and (not torch.is_grad_enabled() or (needs_only_output and not is_view(x))):
        return in_place(x)
    return function(x)


# {Keras's function: (function, in-place function, whether the output suffices to compute the gradient)}
_ACTIVATIONS = {
    keras.activations.linear: (lambda x: x, None, False),
    keras.activations.relu: (torch.relu, torch.relu_, True),
    keras.activations.relu6: (functional.relu6, lambda x: functional.hardtanh_(x, 0.0, 6.0), True),
    keras.activations.silu: (functional.silu, lambda x: functional.silu(x, inplace=True), False),
    keras.activations.hard_sigmoid: (functional.hardsigmoid, lambda x: functional.hardsigmoid(x, inplace=True), False),
    keras.activations.hard_silu: (functional.hardswish, lambda x: functional.hardswish(x, inplace=True), False),
}


def attend(query, key, value, dropout):
    """Return scaled dot-product attention, without storing the attention weights if there is no dropout."""
    if dropout is not None:
        return keras_default.attend(query, key, value, dropout)
    return functional.scaled_dot_product_attention(query, key, value)


_CUDNN = torch.backends.cudnn.enabled


def _value(variable):
    """Return the tensor of a Keras variable, in the dtype of the autocast scope; a tensor is returned unchanged."""
    return getattr(variable, "value", variable)


def _to_channels_first(x, data_format):
    return x.permute(0, 3, 1, 2) if data_format == "channels_last" else x


def _from_channels_first(y, data_format):
    return y.permute(0, 2, 3, 1) if data_format == "channels_last" else y
