"""PyTorch: a process for each device, which torchrun's launcher starts, and averages between them.

Keras's `fit` knows nothing of other processes, and a model wrapped by DistributedDataParallel has no `fit`. So the
gradients are averaged where they reach the optimizer.
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

_BUCKET = 25 * 2**20  # bytes of gradients that travel together, as DistributedDataParallel's
_EXCHANGE = datetime.timedelta(minutes=10)  # after which a process that waits for another gives up


def join(devices, hosts, timeout):
    """See `open_cluster`; `launch` has waited for the hosts."""
    accelerators = torch.cuda.device_count()
    devices = devices or accelerators or 1
    if accelerators and devices > accelerators:
        raise ArgumentError(f"devices={devices} is not allowed: PyTorch has {accelerators} here.")
    wanted = devices * (len(hosts.addresses) if hosts else 1)
    started = int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1
    if wanted != started:
        raise ArgumentError(
            f"{wanted} devices need as many processes under PyTorch, but there are {started}: start the program with "
            f"mobilenet_zoo.training.devices.launch, or with torchrun."
        )
    if started == 1:
        return Cluster()
    if accelerators:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if accelerators else "gloo", timeout=_EXCHANGE)
    return _TorchCluster()


class _TorchCluster(Cluster):
    def __init__(self):
        count = distributed.get_world_size()
        super().__init__(distributed.get_rank(), count, count)

    def prepare(self, model: keras.Model) -> None:
        if model.jit_compile:
            raise ArgumentError("jit_compile=True is not allowed with several processes under PyTorch.")
        _copy_from_first(model.variables + model.optimizer.variables)
        self._part_random_state(model)
        wrap_method(model.optimizer, "apply", _averaging)
        wrap_method(model, "make_train_function", functools.partial(_sharing, model=model))
        wrap_epoch_results(model, functools.partial(_summing, model=model))

    def _part_random_state(self, model):
        """Give each process its own random state; with one, dropout would drop the same of each process's images."""
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


def _averaging(apply):
    def averaged(gradients, variables=None):
        average([gradient for gradient in gradients if gradient is not None])
        return apply(gradients, variables)

    return averaged


def average(tensors):
    """Put into each tensor its mean over the processes; tensors travel in flat buckets, all under way at once."""
    buckets, size = [], {}
    for tensor in tensors:
        if tensor.dtype not in size or size[tensor.dtype][1] + tensor.nbytes > _BUCKET:
            buckets.append([])
            size[tensor.dtype] = buckets[-1], 0
        bucket, used = size[tensor.dtype]
        bucket.append(tensor)
        size[tensor.dtype] = bucket, used + tensor.nbytes
    flats = [torch.cat([tensor.reshape(-1) for tensor in bucket]) for bucket in buckets]
    works: list[Any] = [distributed.all_reduce(flat, async_op=True) for flat in flats]
    for bucket, flat, work in zip(buckets, flats, works, strict=True):
        work.wait()
        flat /= distributed.get_world_size()
        for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(part.view_as(tensor))


def _sharing(make_train_function, model):
    """Return steps of training with batch norm over all processes, and with logs of all of them."""

    def make(force=False):
        made = model.train_function is None or force
        make_train_function(force)
        if made:
            model.train_function = _shared_step(model.train_function)

    return make


def _shared_step(step):
    known = None

    def shared(data):
        nonlocal known
        with batch_shared(shared_torch.normalize_batch):
            logs = step(data)
        images = len(keras.tree.flatten(data)[0])
        numbers = [torch.as_tensor(number, dtype=torch.float32) for number in keras.tree.flatten(logs)]
        *numbers, mean = _mean(torch.stack([*numbers, numbers[0].new_tensor(images)]))
        if images != known:  # reading the mean waits for the device, so not at every step
            known = images
            if mean != images:
                raise ArgumentError(
                    f"A batch of {images} images met others of {float(mean):g} in the mean: every process must "
                    "feed as many. Cluster.share says how many those are."
                )
        return keras.tree.pack_sequence_as(logs, numbers)

    return shared


def _mean(tensor):
    distributed.all_reduce(tensor)
    return tensor / distributed.get_world_size()


def _summing(results, model):
    """Return results of an epoch or an evaluation from the sums of all processes."""

    def summed(logs):
        with _summed(model.metrics_variables):
            return results(logs)

    return summed


@contextlib.contextmanager
def _summed(variables):
    own = [variable.value.clone() for variable in variables]
    for variable in variables:
        if variable.aggregation == "sum":  # as Keras declares what its metrics count
            with torch.no_grad():
                distributed.all_reduce(variable.value.data)
    try:
        yield
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable.assign(value)


def _copy_from_first(variables):
    for variable in variables:
        distributed.broadcast(variable.value.data, 0)


def _gather_rows(row):
    own = torch.as_tensor(row)
    rows = own.new_empty(distributed.get_world_size(), len(own))
    distributed.all_gather(list(rows), own)
    return rows.numpy()
