"""The way into a run of several devices: what each backend has for them."""

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
    """Join the devices of a run, by what the running backend has for them.

    It comes before anything is computed: a backend fixes its devices when it is first used. Where a host doesn't answer
    in time the process prints their names and leaves with status 75, since JAX and TensorFlow wait where nothing
    can be raised; under PyTorch `launch` does the waiting.

    Args:
        devices: Devices of this host. On CPUs they are virtual ones (JAX, TensorFlow) or processes (PyTorch), which is
            for tests. None: all accelerators, or one CPU.
        hosts: None for this host alone; `"name:port,name:port"` or a list of those, the same on every host;
            `"slurm"`; under JAX also `"tpu"` for the hosts of a TPU slice.
        host_index: Which of `hosts` this is, from 0, where they are named.
        timeout: Seconds to wait for the other hosts.

    Yields:
        A `Cluster`.

    Raises:
        ValueError: More devices than there are, hosts that can't be read, or PyTorch without a process for each device.
    """
    if devices is not None:
        devices = integer("devices", devices, 1)
    timeout = integer("timeout", timeout, 1)
    backend = keras.backend.backend()
    found: Any = hosts
    if hosts == "tpu":
        if backend != "jax":
            raise ArgumentError(f"hosts='tpu' is not offered by {backend}: set KERAS_BACKEND=jax.")
    else:
        found = read_hosts(hosts, host_index)
    cluster = _joined(backend, devices, found, timeout)
    try:
        yield cluster
    except BaseException as error:
        cluster.close(failed=not isinstance(error, Agreed))
        raise
    cluster.close()


def _joined(backend, devices, hosts, timeout):
    if backend == "jax":
        from mobilenet_zoo.training.devices.jax_cluster import join
    elif backend == "torch":
        from mobilenet_zoo.training.devices.torch_cluster import join
    elif backend == "tensorflow":
        from mobilenet_zoo.training.devices.tensorflow_cluster import join
    else:
        raise ArgumentError(f"KERAS_BACKEND={backend} can't train. Allowed: jax, tensorflow, torch.")
    return join(devices, hosts, timeout)
