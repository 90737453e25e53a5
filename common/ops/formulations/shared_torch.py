"""PyTorch: batch norm over a batch of which each process has a part."""

from typing import Any

import torch
from torch import distributed

from mobilenet_common.ops.formulations import torch_native

_AXES = (0, 2, 3)


def normalize_batch(x, gamma, beta, epsilon, activation, data_format):
    """Return `torch_native.normalize_batch` with the statistics of all processes; their numbers of images may differ.

    One collective forward (of each process's mean, variance and count) and one backward; the arithmetic is that of
    PyTorch's SyncBatchNorm, which runs on CUDA alone.
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
        wanted = (True, True, True)
        # As if the statistics were constants; what they add depends on the two sums over all processes.
        x_gradient, gamma_gradient, beta_gradient = torch.ops.aten.native_batch_norm_backward(
            g, x, gamma, mean, variance, None, None, False, ctx.epsilon, wanted
        )
        sums = torch.cat([gamma_gradient, beta_gradient])
        distributed.all_reduce(sums)
        along_g_x, along_g = (sums / count).chunk(2)
        inverse = torch.rsqrt(variance + ctx.epsilon)
        slope = (gamma * inverse**2 * along_g_x)[:, None, None]
        offset = (gamma * inverse * along_g)[:, None, None] - slope * mean[:, None, None]
        x_gradient = x_gradient - (offset + slope * x).to(x.dtype)
        return x_gradient, gamma_gradient, beta_gradient, None


def _statistics(x):
    """Return mean, biased variance and number of the values of each channel, over all processes."""
    single = x if x.dtype == torch.float64 else x.float()
    variance, mean = torch.var_mean(single, _AXES, correction=0)
    count = mean.new_full((1,), x.numel() // x.shape[1])
    own = torch.cat([mean, variance, count])
    every = own.new_empty(distributed.get_world_size(), own.numel())
    distributed.all_gather(list(every), own)
    means, variances = every[:, :-1].chunk(2, 1)
    count = every[:, -1].sum()
    shares = every[:, -1:] / count
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(0), count
