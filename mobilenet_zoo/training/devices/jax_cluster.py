"""JAX: `keras.distribution.DataParallel` over the devices of one process a host.

One program sees the whole batch, so that gradients, metrics and batch norm are of all of it by themselves.
"""

from typing import Any

import jax
import keras

from mobilenet_common.errors import ArgumentError
from mobilenet_zoo.training.devices.cluster import Cluster, exchange
from mobilenet_zoo.training.devices.hosts import answering

_HEARTBEAT = 10  # seconds without a sign of life, after which JAX aborts; its own 100 would burn machine time
_LEAVING = 10  # seconds that the first to finish waits for the others


def join(devices, hosts, timeout):
    """See `open_cluster`."""
    if hosts is None and devices == 1:
        return Cluster()
    _configure(devices, hosts)
    if hosts is not None:
        _initialize(hosts, timeout)
    local = jax.local_device_count()
    devices = devices or (1 if hosts is None and jax.default_backend() == "cpu" else local)
    if devices > local:
        jax_has = ", ".join(map(str, jax.local_devices()))
        raise ArgumentError(f"devices={devices} is not allowed: JAX has {local} here ({jax_has}).")
    if devices * jax.process_count() == 1:
        return Cluster()
    return _JaxCluster(devices)


def _configure(devices, hosts):
    """Set what JAX reads when its backend starts; a backend that runs already keeps its settings."""
    try:
        if devices is not None:
            jax.config.update("jax_num_cpu_devices", devices)
        if hosts is not None:
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            # Else a C++ handler of JAX's takes SIGTERM, which the program wants to save at.
            jax.config.update("jax_enable_preemption_service", False)
    except RuntimeError as error:
        if hosts is not None:
            raise ArgumentError("JAX runs already: open the cluster before anything is computed.") from error


def _initialize(hosts, timeout):
    options: dict[str, Any] = {"heartbeat_timeout_seconds": _HEARTBEAT, "shutdown_timeout_seconds": _LEAVING}
    if hosts == "tpu":
        jax.distributed.initialize(initialization_timeout=timeout, **options)
        return
    name, port = hosts.first
    place: dict[str, Any] = {"num_processes": len(hosts.addresses), "process_id": hosts.index}
    # Where its own time is over, JAX aborts without a word on who is missing.
    with answering(hosts, timeout):
        jax.distributed.initialize(
            f"{name}:{port}",
            **place,
            **options,
            initialization_timeout=timeout + _LEAVING,
            cluster_detection_method="deactivate",
        )
        jax.local_device_count()  # starts the backend, in which the processes tell each other their devices


class _JaxCluster(Cluster):
    def __init__(self, devices):
        processes = jax.process_count()
        super().__init__(jax.process_index(), processes, devices * processes)
        self.computes_alone = processes == 1
        chosen = []
        for process in range(processes):
            chosen += [device for device in jax.devices() if device.process_index == process][:devices]
        names = [f"{device.platform}:{device.id}" for device in chosen]
        # Each process feeds its own share of a batch, which Keras would otherwise cut from the whole itself.
        distribution = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
        self._before = keras.distribution.distribution()
        keras.distribution.set_distribution(distribution)  # `fit` asks for it too, so it stays until the end

    def gather(self, value):
        if self.process_count == 1:
            return [value]
        from jax.experimental import multihost_utils

        return exchange(value, multihost_utils.process_allgather)

    def close(self, failed: bool = False) -> None:
        keras.distribution.set_distribution(self._before)
        if self.process_count > 1 and not failed:
            jax.distributed.shutdown()
