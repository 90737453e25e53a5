"""JAX: `keras.distribution.DataParallel` over the devices of all hosts, with one process per host.

One program sees the whole batch, so gradients, metrics and batch norm cover it without further code.
"""

from typing import Any

import jax
import keras

from mobilenet_common.errors import ArgumentError
from mobilenet_zoo.training.devices.cluster import Cluster, exchange
from mobilenet_zoo.training.devices.hosts import exit_on_timeout

_HEARTBEAT = 10  # Seconds without a heartbeat after which JAX aborts; its default of 100 would waste machine time.
_SHUTDOWN_TIMEOUT = 10  # Seconds that the first process to finish waits for the others.


def join(devices, hosts, timeout):
    """Join the run under JAX, as `open_cluster` describes."""
    if hosts is None and devices == 1:
        return Cluster()
    _configure(devices, hosts)
    if hosts is not None:
        _initialize(hosts, timeout)
    local = jax.local_device_count()
    devices = devices or (1 if hosts is None and jax.default_backend() == "cpu" else local)
    if devices > local:
        jax_has = ", ".join(map(str, jax.local_devices()))
        raise ArgumentError(f"devices={devices} is not allowed: JAX has only {local} on this host ({jax_has}).")
    if devices * jax.process_count() == 1:
        return Cluster()
    return _JaxCluster(devices)


def _configure(devices, hosts):
    """Set the options that JAX reads when its backend starts; a running backend keeps its settings."""
    try:
        if devices is not None:
            jax.config.update("jax_num_cpu_devices", devices)
        if hosts is not None:
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            # Otherwise, a C++ handler of JAX receives SIGTERM, on which the program should save a checkpoint.
            jax.config.update("jax_enable_preemption_service", False)
    except RuntimeError as error:
        if hosts is not None:
            raise ArgumentError("JAX is already initialized: call open_cluster before anything is computed.") from error


def _initialize(hosts, timeout):
    options: dict[str, Any] = {"heartbeat_timeout_seconds": _HEARTBEAT, "shutdown_timeout_seconds": _SHUTDOWN_TIMEOUT}
    if hosts == "tpu":
        jax.distributed.initialize(initialization_timeout=timeout, **options)
        return
    name, port = hosts.first
    process_options: dict[str, Any] = {"num_processes": len(hosts.addresses), "process_id": hosts.index}
    # JAX's own timeout aborts without a message about the missing hosts, so let `exit_on_timeout` act before it.
    with exit_on_timeout(hosts, timeout):
        jax.distributed.initialize(
            f"{name}:{port}",
            **process_options,
            **options,
            initialization_timeout=timeout + _SHUTDOWN_TIMEOUT,
            cluster_detection_method="deactivate",
        )
        jax.local_device_count()  # Starts the backend, in which the processes exchange their lists of devices.


class _JaxCluster(Cluster):
    def __init__(self, devices):
        processes = jax.process_count()
        super().__init__(jax.process_index(), processes, devices * processes)
        self.computes_alone = processes == 1
        devices_of_run = []
        for process in range(processes):
            devices_of_run += [device for device in jax.devices() if device.process_index == process][:devices]
        names = [f"{device.platform}:{device.id}" for device in devices_of_run]
        # Each process feeds its own part of a batch. With auto_shard_dataset, Keras would split the whole batch itself.
        distribution = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
        self._previous_distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(distribution)  # `fit` reads it, so it must stay set until `close`.

    def gather(self, value):
        if self.process_count == 1:
            return [value]
        from jax.experimental import multihost_utils

        return exchange(value, multihost_utils.process_allgather)

    def close(self, failed: bool = False) -> None:
        keras.distribution.set_distribution(self._previous_distribution)
        if self.process_count > 1 and not failed:
            jax.distributed.shutdown()
