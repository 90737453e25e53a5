"""PyTorch's batch norm over a batch that several processes share."""

from typing import Any

import torch
from torch import distributed

from mobilenet_common.ops.formulations import torch_native

_AXES = (0, 2, 3)


def normalize_batch(x, gamma, beta, epsilon, activation, data_format):
    """Return `torch_native.normalize_batch` with the statistics of all processes, whose numbers of images can differ.

    The forward pass has one collective operation, which gathers each process's mean, variance and count; the backward
    pass has one too. The arithmetic is the same as in PyTorch's SyncBatchNorm, which runs only on CUDA.
    """
    gamma, beta = getattr(gamma, "value", gamma), getattr(beta, "value", beta)
    channels_last = data_format == "channels_last"
    y, mean, variance = _SharedBatchNorm.apply(x.permute(0, 3, 1, 2) if channels_last else x, gamma, beta, epsilon)
    y = torch_native.activate(y, activation, True)
    return (y.permute(0, 2, 3, 1) if channels_last else y), mean, variance


class _SharedBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, gamma, beta, epsilon):
        mean, variance, count = _statistics(x)
        y = torch.batch_norm(x, gamma, beta, mean, variance, False, 0.0, epsilon, torch.backends.cudnn.enabled)
        ctx.save_for_backward(x, gamma, mean, variance, count)
        ctx.epsilon = epsilon
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        g = grad_outputs[0]
        x, gamma, mean, variance, count = ctx.saved_tensors
        output_mask = (True, True, True)
        # This call treats the statistics as constants. Their contribution depends on the two sums over all processes.
        x_gradient, gamma_gradient, beta_gradient = torch.ops.aten.native_batch_norm_backward(
            g, x, gamma, mean, variance, None, None, False, ctx.epsilon, output_mask
        )
        sums = torch.cat([gamma_gradient, beta_gradient])
        distributed.all_reduce(sums)
        mean_g_x, mean_g = (sums / count).chunk(2)
        inverse = torch.rsqrt(variance + ctx.epsilon)
        slope = (gamma * inverse**2 * mean_g_x)[:, None, None]
        offset = (gamma * inverse * mean_g)[:, None, None] - slope * mean[:, None, None]
        x_gradient = x_gradient - (offset + slope * x).to(x.dtype)
        return x_gradient, gamma_gradient, beta_gradient, None


def _statistics(x):
    """Return the mean, biased variance and number of values of each channel, over all processes."""
    x_float = x if x.dtype == torch.float64 else x.float()
    variance, mean = torch.var_mean(x_float, _AXES, correction=0)
    count = mean.new_full((1,), x.numel() // x.shape[1])
    local = torch.cat([mean, variance, count])
    gathered = local.new_empty(distributed.get_world_size(), local.numel())
    distributed.all_gather(list(gathered), local)
    means, variances = gathered[:, :-1].chunk(2, 1)
    count = gathered[:, -1].sum()
    fractions = gathered[:, -1:] / count
    mean = (fractions * means).sum(0)
    return mean, (fractions * (variances + (means - mean) ** 2)).sum(0), count
