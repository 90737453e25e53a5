"""TensorFlow: MirroredStrategy on one host, MultiWorkerMirroredStrategy over several hosts with one process each."""

import functools
import itertools
import json
import os
import time
from typing import Any

import numpy as np
import tensorflow as tf

from mobilenet_common.errors import ArgumentError
from mobilenet_common.internals.keras_internals import (
    build_before_fit,
    build_symbolically,
    patch_reduce_per_replica,
    wrap_method,
)
from mobilenet_common.internals.tensorflow_internals import set_heartbeat
from mobilenet_common.ops.formulations import batch_shared, shared_tensorflow
from mobilenet_zoo.training.devices.cluster import Cluster, exchange
from mobilenet_zoo.training.devices.hosts import exit_on_timeout

_HEARTBEAT = 10  # Seconds without a heartbeat after which a host counts as lost.
_SHUTDOWN_DELAY = 1  # Seconds to keep running at the end, while the other hosts fetch this host's last messages.


def join(devices, hosts, timeout):
    """Join the run under TensorFlow, as `open_cluster` describes."""
    if hosts is None and devices == 1:
        return Cluster()
    kind, devices = _configure(devices)
    if hosts is None:
        return _TensorFlowCluster(tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(devices)]))
    if kind == "CPU" and devices > 1:
        raise ArgumentError(
            f"devices={devices} is not allowed: with several hosts, TensorFlow uses only one CPU of each host."
        )
    task = {"type": "worker", "index": hosts.index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": list(hosts.addresses)}, "task": task})
    set_heartbeat(len(hosts.addresses), _HEARTBEAT)
    with exit_on_timeout(hosts, timeout):
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return _TensorFlowCluster(strategy, hosts)


def _configure(devices):
    """Return the type of the devices, "GPU" or "CPU", and their number on this host."""
    accelerators = tf.config.list_physical_devices("GPU")
    devices = devices or len(accelerators) or 1
    try:
        if accelerators:
            if devices > len(accelerators):
                raise ArgumentError(
                    f"devices={devices} is not allowed: TensorFlow has only {len(accelerators)} on this host."
                )
            tf.config.set_visible_devices(accelerators[:devices], "GPU")
            return "GPU", devices
        cpu_configuration = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [cpu_configuration] * devices
        )
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("GPU" if accelerators else "CPU")) < devices:
            raise ArgumentError(
                "TensorFlow is already initialized: call open_cluster before anything is computed."
            ) from error
    return "CPU", devices


class _TensorFlowCluster(Cluster):
    def __init__(self, strategy, hosts=None):
        self._strategy = strategy
        self._over_hosts = hosts is not None
        self.computes_alone = not self._over_hosts
        index, count = (hosts.index, len(hosts.addresses)) if hosts else (0, 1)
        super().__init__(index, count, strategy.num_replicas_in_sync)
        self._example_batch = None

    def scope(self):
        return self._strategy.scope()

    def prepare(self, model):
        wrap_method(model, "make_train_function", functools.partial(_with_shared_batch_norm, model=model))
        build_before_fit(model, functools.partial(self._build, model))
        if self._over_hosts:
            patch_reduce_per_replica()

    def feed(self, batches):
        batches = iter(batches)
        self._example_batch = next(batches)
        batches = itertools.chain([self._example_batch], batches)
        signature = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in self._example_batch)
        dataset = tf.data.Dataset.from_generator(lambda: batches, output_signature=signature)
        size, replicas = len(self._example_batch[0]), self.devices // self.process_count
        if size % replicas:
            raise ArgumentError(
                f"A batch of {size} images can't be split among {replicas} devices: use a multiple of {replicas}."
            )
        if replicas > 1:
            dataset = dataset.rebatch(size // replicas)
        return self._strategy.distribute_datasets_from_function(lambda _: dataset.prefetch(2 * replicas))

    def _build(self, model):
        """Build a model before its first `fit`; Keras would consume a batch of the data for that."""
        if self._example_batch is None:
            raise ArgumentError(
                "Under TensorFlow's strategies, `fit` needs the batches from Cluster.feed: call it before `fit`."
            )
        with self._strategy.scope():
            build_symbolically(model, self._example_batch)

    def gather(self, value):
        if self.process_count == 1:
            return [value]
        return exchange(value, self._gather_rows)

    def _gather_rows(self, row):
        rows = self._strategy.run(_rows_of_replicas, args=(tf.constant(row),))
        return np.asarray(self._strategy.experimental_local_results(rows)[0])[:: self.devices // self.process_count]

    def close(self, failed=False):
        if self._over_hosts:
            os.environ.pop("TF_CONFIG", None)
            if not failed:
                self.barrier()
                time.sleep(_SHUTDOWN_DELAY)


@tf.function(input_signature=[tf.TensorSpec((None,), tf.int32)])
def _rows_of_replicas(row):
    return tf.distribute.get_replica_context().all_gather(row[None], axis=0)


def _with_shared_batch_norm(make_train_function, model):
    """Wrap `make_train_function` so that training steps compute batch norm's statistics over all replicas."""

    def make_shared(force=False):
        is_rebuilt = model.train_function is None or force
        make_train_function(force)
        if is_rebuilt:
            step: Any = model.train_function

            def shared_step(iterator):  # The context also covers the threads that trace the replicas.
                with batch_shared(shared_tensorflow.normalize_batch):
                    return step(iterator)

            model.train_function = shared_step

    return make_shared
