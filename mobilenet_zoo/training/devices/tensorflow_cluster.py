"""TensorFlow: MirroredStrategy on one host, MultiWorkerMirroredStrategy over several, a process for each host."""

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
from mobilenet_zoo.training.devices.hosts import answering

_HEARTBEAT = 10  # seconds without a sign of life, after which a host counts as lost
_LEAVING = (
    1  # second in which the others fetch what this process has for them: what it sends waits here to be asked for
)


def join(devices, hosts, timeout):
    """See `open_cluster`."""
    if hosts is None and devices == 1:
        return Cluster()
    kind, devices = _configure(devices)
    if hosts is None:
        return _TensorFlowCluster(tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(devices)]))
    if kind == "CPU" and devices > 1:
        raise ArgumentError(f"devices={devices} is not allowed: over several hosts TensorFlow uses one CPU of each.")
    task = {"type": "worker", "index": hosts.index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": list(hosts.addresses)}, "task": task})
    set_heartbeat(len(hosts.addresses), _HEARTBEAT)
    with answering(hosts, timeout):
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return _TensorFlowCluster(strategy, hosts)


def _configure(devices):
    """Return the kind of device that is used, and how many of it."""
    accelerators = tf.config.list_physical_devices("GPU")
    devices = devices or len(accelerators) or 1
    try:
        if accelerators:
            if devices > len(accelerators):
                raise ArgumentError(f"devices={devices} is not allowed: TensorFlow has {len(accelerators)} here.")
            tf.config.set_visible_devices(accelerators[:devices], "GPU")
            return "GPU", devices
        one = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [one] * devices)
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("GPU" if accelerators else "CPU")) < devices:
            raise ArgumentError("TensorFlow runs already: open the cluster before anything is computed.") from error
    return "CPU", devices


class _TensorFlowCluster(Cluster):
    def __init__(self, strategy, hosts=None):
        self._strategy = strategy
        self._over_hosts = hosts is not None
        self.computes_alone = not self._over_hosts
        index, count = (hosts.index, len(hosts.addresses)) if hosts else (0, 1)
        super().__init__(index, count, strategy.num_replicas_in_sync)
        self._example = None

    def scope(self):
        return self._strategy.scope()

    def prepare(self, model):
        wrap_method(model, "make_train_function", functools.partial(_sharing, model=model))
        build_before_fit(model, functools.partial(self._build, model))
        if self._over_hosts:
            patch_reduce_per_replica()

    def feed(self, batches):
        batches = iter(batches)
        self._example = next(batches)
        batches = itertools.chain([self._example], batches)
        signature = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in self._example)
        dataset = tf.data.Dataset.from_generator(lambda: batches, output_signature=signature)
        size, replicas = len(self._example[0]), self.devices // self.process_count
        if size % replicas:
            raise ArgumentError(f"A batch of {size} images can't be divided among {replicas} devices.")
        if replicas > 1:
            dataset = dataset.rebatch(size // replicas)
        return self._strategy.distribute_datasets_from_function(lambda _: dataset.prefetch(2 * replicas))

    def _build(self, model):
        """Build a model before its first `fit`: Keras would take a batch from the data for it."""
        if self._example is None:
            raise ArgumentError("Under TensorFlow's strategies `fit` takes what Cluster.feed makes of the batches.")
        with self._strategy.scope():
            build_symbolically(model, self._example)

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
                time.sleep(_LEAVING)


@tf.function(input_signature=[tf.TensorSpec((None,), tf.int32)])
def _rows_of_replicas(row):
    return tf.distribute.get_replica_context().all_gather(row[None], axis=0)


def _sharing(make_train_function, model):
    """Return steps of training with batch norm over all replicas."""

    def make(force=False):
        made = model.train_function is None or force
        make_train_function(force)
        if made:
            step: Any = model.train_function

            def shared(iterator):  # in the scope of all the threads that trace a replica each
                with batch_shared(shared_tensorflow.normalize_batch):
                    return step(iterator)

            model.train_function = shared

    return make
