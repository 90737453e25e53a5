"""Batch norm over a batch split across devices, compared with PyTorch's autograd on the whole batch."""

import numpy as np
import pytest

from tests.training.batch_norm_worker import EPSILON, arrays
from tests.training.processes import launch_here


def expected(data_format):
    """Compute the output, statistics and gradients with native PyTorch operations in float64."""
    torch = pytest.importorskip("torch")
    x, kernel, gamma, beta, weights = (torch.tensor(array, dtype=torch.float64) for array in arrays(data_format))
    leaves = [array.requires_grad_() for array in (x, kernel, gamma, beta)]
    images = x.permute(0, 3, 1, 2) if data_format == "channels_last" else x
    y = torch.nn.functional.conv2d(images, kernel.permute(3, 2, 0, 1))
    variance, mean = torch.var_mean(y, (0, 2, 3), correction=0)
    y = torch.relu(torch.nn.functional.batch_norm(y, None, None, gamma, beta, True, 0.0, EPSILON))
    z = torch.nn.functional.hardswish(torch.nn.functional.batch_norm(y, None, None, gamma, beta, True, 0.0, EPSILON))
    z = z.permute(0, 2, 3, 1) if data_format == "channels_last" else z
    (z * weights).sum().backward()
    values = (z, mean, variance, *(leaf.grad for leaf in leaves))
    return dict(zip(("z", "mean", "variance", "x", "kernel", "gamma", "beta"), values, strict=True))


def check(folder, devices, boundaries, data_format):
    module = "tests.lean tests.training.batch_norm_worker"
    launch_here(folder, devices, module, cuts=boundaries, data_format=data_format)
    parts = [np.load(folder / f"part{i}.npz") for i in range(devices)]
    for name, value in expected(data_format).items():
        value = value.detach().numpy()
        if name in ("mean", "variance"):  # the same on every device
            actual = np.stack([part[name] for part in parts])
            value = np.stack([value] * devices)
        elif name in ("z", "x"):  # each device has the part of its images
            actual = np.concatenate([part[name] for part in parts])
        else:  # the gradients of the parameters add up
            actual = sum(part[name] for part in parts)
        assert np.abs(actual - value).max() <= 1e-5 * max(1.0, np.abs(value).max()), name


@pytest.mark.parametrize("data_format", ["channels_last", pytest.param("channels_first", marks=pytest.mark.slow)])
def test_two_devices_match_one(tmp_path, backend, data_format):
    if backend == "jax" or (backend, data_format) == ("tensorflow", "channels_first"):
        pytest.skip("JAX programs see the whole batch; TensorFlow lacks channels-first convolutions on CPUs")
    check(tmp_path, 2, [0, 4, 8], data_format)


@pytest.mark.slow
def test_processes_with_unequal_parts_match_one_device(tmp_path, backend):
    if backend != "torch":
        pytest.skip("only PyTorch's processes can have unequal parts")
    check(tmp_path, 2, [0, 1, 8], "channels_last")


@pytest.mark.slow
def test_four_devices_match_one(tmp_path, backend):
    if backend == "jax":
        pytest.skip("JAX programs see the whole batch")
    check(tmp_path, 4, [0, 2, 4, 6, 8], "channels_last")
