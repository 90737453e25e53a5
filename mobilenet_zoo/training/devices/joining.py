"""Joining a training run on several devices, with the mechanism of each backend."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from mobilenet_common.errors import ArgumentError, integer
from mobilenet_zoo.training.devices.cluster import Agreed, Cluster
from mobilenet_zoo.training.devices.hosts import read_hosts


@contextlib.contextmanager
def open_cluster(
    devices: int | None = 1,
    hosts: str | Sequence[str] | None = None,
    host_index: int | None = None,
    *,
    timeout: int = 300,
) -> Iterator[Cluster]:
    """Join a training run on several devices, with the mechanism of the current backend.

    Enter this context before anything is computed, because a backend fixes its devices when it is first used. If a host
    doesn't respond in time, the process prints the names of the hosts and exits with status 75: JAX and TensorFlow wait
    in code that can't be interrupted by an exception. Under PyTorch, `launch` waits for the hosts.

    Args:
        devices: Number of devices of this host; None for all accelerators, or for one CPU if there are none. On CPUs,
            they are virtual devices (JAX, TensorFlow) or processes (PyTorch), which are meant for tests.
        hosts: None for this host alone; `"name:port,name:port"` or a list of such addresses, the same on every host;
            `"slurm"` for the hosts of a SLURM step; under JAX, also `"tpu"` for the hosts of a TPU slice.
        host_index: Index of this host in `hosts`, from 0; only with addresses.
        timeout: Seconds to wait for the other hosts.

    Yields:
        A `Cluster`.

    Raises:
        ValueError: There are fewer devices than requested, `hosts` is invalid, or PyTorch doesn't have one process per
            device.
    """
    if devices is not None:
        devices = integer("devices", devices, 1)
    timeout = integer("timeout", timeout, 1)
    backend = keras.backend.backend()
    resolved_hosts: Any = hosts
    if hosts == "tpu":
        if backend != "jax":
            raise ArgumentError(f"hosts='tpu' is not allowed with {backend}: set KERAS_BACKEND=jax.")
    else:
        resolved_hosts = read_hosts(hosts, host_index)
    cluster = _join(backend, devices, resolved_hosts, timeout)
    try:
        yield cluster
    except BaseException as error:
        cluster.close(failed=not isinstance(error, Agreed))
        raise
    cluster.close()


def _join(backend, devices, hosts, timeout):
    if backend == "jax":
        from mobilenet_zoo.training.devices.jax_cluster import join
    elif backend == "torch":
        from mobilenet_zoo.training.devices.torch_cluster import join
    elif backend == "tensorflow":
        from mobilenet_zoo.training.devices.tensorflow_cluster import join
    else:
        raise ArgumentError(f"KERAS_BACKEND={backend} doesn't support training. Allowed: jax, tensorflow, torch.")
    return join(devices, hosts, timeout)
