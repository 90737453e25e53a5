"""Formulations for graphs exported by PyTorch: few operations, none of them in place, and no tricks for speed."""

import warnings

import keras
import torch
from torch.nn import functional

from mobilenet_common.internals.torch_internals import TracerWarning, is_jit_tracing
from mobilenet_common.ops.formulations.torch_native import activate as native_activate
from mobilenet_common.ops.geometry import padding_widths


def dense(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a full convolution; padding that PyTorch's convolution doesn't support becomes a separate operation."""
    return _convolve(x, _tensor(kernel).permute(3, 2, 0, 1), bias, 1, stride, dilation, padding, data_format)


pointwise = dense


def depthwise(x, kernel, bias, stride, dilation, padding, data_format):
    """Return a depthwise convolution."""
    weight = _tensor(kernel).permute(2, 3, 0, 1)
    return _convolve(x, weight, bias, _constants(weight.shape)[0], stride, dilation, padding, data_format)


def _convolve(x, weight, bias, groups, stride, dilation, padding, data_format):
    if data_format == "channels_last":
        x = x.permute(0, 3, 1, 2)
    window = _constants(weight.shape[2:])
    widths = [padding_widths(n, k, stride, dilation, padding) for n, k in zip(x.shape[2:], window, strict=True)]
    (top, bottom), (left, right) = widths
    # In a `torch.jit` trace, widths that depend on the image size are tensors; comparisons would make them constants.
    if isinstance(top + left, torch.Tensor) or top != bottom or left != right:
        x = functional.pad(x, (left, right, top, bottom))
        top = left = 0
    bias = None if bias is None else _tensor(bias)
    y = functional.conv2d(x, weight, bias, stride, (top, left), dilation, groups)
    return y.permute(0, 2, 3, 1) if data_format == "channels_last" else y


def normalize(x, mean, variance, gamma, beta, epsilon, activation, data_format, overwrite):
    """Return PyTorch's batch norm with given statistics, followed by an activation."""
    gamma, beta, mean, variance = (_tensor(vector) for vector in (gamma, beta, mean, variance))
    y = x.permute(0, 3, 1, 2) if data_format == "channels_last" else x
    y = torch.batch_norm(y, gamma, beta, mean, variance, False, 0.0, epsilon, False)
    return activate(y.permute(0, 2, 3, 1) if data_format == "channels_last" else y, activation, False)


def activate(x, activation, overwrite):
    """Return `activation(x)`, computed by PyTorch's own operation into a new tensor."""
    return native_activate(x, activation, False)


def attend(query, key, value, dropout):
    """Return scaled dot-product attention, with the query scaled before the product."""
    weights = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
    weights = torch.softmax(weights, -1)
    return torch.matmul(weights if dropout is None else dropout(weights), value)


def _constants(sizes):
    """Return sizes that don't depend on the input as integers; in a `torch.jit` trace, all sizes are tensors."""
    if not is_jit_tracing():  # `torch.compile` can't trace `warnings.catch_warnings`.
        return list(sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        return [int(size) for size in sizes]


def _tensor(variable):
    return keras.ops.convert_to_tensor(variable)
