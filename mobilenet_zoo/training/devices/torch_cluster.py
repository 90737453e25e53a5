"""PyTorch: one process per device, started by torchrun's launcher; gradients are averaged over the processes.

Keras's `fit` doesn't know about other processes, and a model wrapped in DistributedDataParallel has no `fit`. So the
gradients are averaged just before the optimizer applies them.
"""

import contextlib
import datetime
import functools
import os
from typing import Any

import keras
import numpy as np
import torch
from torch import distributed

from mobilenet_common.errors import ArgumentError
from mobilenet_common.internals.keras_internals import wrap_epoch_results, wrap_method
from mobilenet_common.ops.formulations import batch_shared, shared_torch
from mobilenet_zoo.training.devices.cluster import Cluster, exchange

_BUCKET_BYTES = 25 * 2**20  # Size of the gradients that are sent together, as in DistributedDataParallel.
_TIMEOUT = datetime.timedelta(minutes=10)  # A process that waits longer for another process gives up.


def join(devices, hosts, timeout):
    """Join the run under PyTorch, as `open_cluster` describes; `launch` has waited for the other hosts."""
    accelerators = torch.cuda.device_count()
    devices = devices or accelerators or 1
    if accelerators and devices > accelerators:
        raise ArgumentError(f"devices={devices} is not allowed: PyTorch has only {accelerators} on this host.")
    required = devices * (len(hosts.addresses) if hosts else 1)
    started = int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1
    if required != started:
        raise ArgumentError(
            f"{required} devices need {required} processes under PyTorch, but there are {started}: start the program "
            "with mobilenet_zoo.training.devices.launch, or with torchrun."
        )
    if started == 1:
        return Cluster()
    if accelerators:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if accelerators else "gloo", timeout=_TIMEOUT)
    return _TorchCluster()


class _TorchCluster(Cluster):
    def __init__(self):
        count = distributed.get_world_size()
        super().__init__(distributed.get_rank(), count, count)

    def prepare(self, model: keras.Model) -> None:
        if model.jit_compile:
            raise ArgumentError(
                "jit_compile=True is not allowed with several processes under PyTorch: set it to False."
            )
        _copy_from_first(model.variables + model.optimizer.variables)
        self._vary_random_state(model)
        wrap_method(model.optimizer, "apply", _with_averaged_gradients)
        wrap_method(model, "make_train_function", functools.partial(_with_shared_batch_norm, model=model))
        wrap_epoch_results(model, functools.partial(_with_summed_metrics, model=model))

    def _vary_random_state(self, model):
        """Give each process its own random state, so that dropout differs between the processes' images."""
        if self.process_index:
            torch.manual_seed(torch.initial_seed() + self.process_index)
        for variable in model.variables:
            if variable.path.endswith("seed_generator_state"):
                seed, step = np.array(keras.ops.convert_to_numpy(variable), np.int64)
                variable.assign([(seed + self.process_index) % 2**31, step])

    def gather(self, value):
        return exchange(value, _gather_rows)

    def close(self, failed: bool = False) -> None:
        distributed.destroy_process_group()


def _with_averaged_gradients(apply):
    def apply_averaged(gradients, variables=None):
        average_tensors([gradient for gradient in gradients if gradient is not None])
        return apply(gradients, variables)

    return apply_averaged


def average_tensors(tensors):
    """Replace each tensor by its mean over the processes, with concurrent all-reduces of flat buckets."""
    buckets, size = [], {}
    for tensor in tensors:
        if tensor.dtype not in size or size[tensor.dtype][1] + tensor.nbytes > _BUCKET_BYTES:
            buckets.append([])
            size[tensor.dtype] = buckets[-1], 0
        bucket, used_bytes = size[tensor.dtype]
        bucket.append(tensor)
        size[tensor.dtype] = bucket, used_bytes + tensor.nbytes
    flat_buckets = [torch.cat([tensor.reshape(-1) for tensor in bucket]) for bucket in buckets]
    reductions: list[Any] = [distributed.all_reduce(flat_bucket, async_op=True) for flat_bucket in flat_buckets]
    for bucket, flat_bucket, reduction in zip(buckets, flat_buckets, reductions, strict=True):
        reduction.wait()
        flat_bucket /= distributed.get_world_size()
        for tensor, part in zip(bucket, flat_bucket.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(part.view_as(tensor))


def _with_shared_batch_norm(make_train_function, model):
    """Wrap `make_train_function` so that training steps share batch norm's statistics and logs among all processes."""

    def make_shared(force=False):
        is_rebuilt = model.train_function is None or force
        make_train_function(force)
        if is_rebuilt:
            model.train_function = _shared_step(model.train_function)

    return make_shared


def _shared_step(step):
    checked_size = None

    def shared_step(data):
        nonlocal checked_size
        with batch_shared(shared_torch.normalize_batch):
            logs = step(data)
        image_count = len(keras.tree.flatten(data)[0])
        numbers = [torch.as_tensor(number, dtype=torch.float32) for number in keras.tree.flatten(logs)]
        *numbers, mean = _mean(torch.stack([*numbers, numbers[0].new_tensor(image_count)]))
        if image_count != checked_size:  # Reading the mean waits for the device, so check only when the size changes.
            checked_size = image_count
            if mean != image_count:
                raise ArgumentError(
                    f"This process fed a batch of {image_count} images, but the mean over all processes is "
                    f"{float(mean):g}: every process must feed Cluster.share(batch_size) images."
                )
        return keras.tree.pack_sequence_as(logs, numbers)

    return shared_step


def _mean(tensor):
    distributed.all_reduce(tensor)
    return tensor / distributed.get_world_size()


def _with_summed_metrics(results, model):
    """Wrap the results of an epoch or an evaluation so that they count the images of all processes."""

    def summed_results(logs):
        with _summed_over_processes(model.metrics_variables):
            return results(logs)

    return summed_results


@contextlib.contextmanager
def _summed_over_processes(variables):
    local = [variable.value.clone() for variable in variables]
    for variable in variables:
        if variable.aggregation == "sum":  # Keras declares this for the sums and counts of its metrics.
            with torch.no_grad():
                distributed.all_reduce(variable.value.data)
    try:
        yield
    finally:
        for variable, value in zip(variables, local, strict=True):
            variable.assign(value)


def _copy_from_first(variables):
    for variable in variables:
        distributed.broadcast(variable.value.data, 0)


def _gather_rows(row):
    local = torch.as_tensor(row)
    rows = local.new_empty(distributed.get_world_size(), len(local))
    distributed.all_gather(list(rows), local)
    return rows.numpy()
