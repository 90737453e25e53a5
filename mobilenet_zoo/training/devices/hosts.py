"""The hosts of a run, and the index of this host among them."""

import contextlib
import os
import re
import signal
import socket
import sys
import threading
from typing import NamedTuple

from mobilenet_common.errors import ArgumentError, integer

EXIT_NO_RESPONSE = 75  # The exit status if a host doesn't respond: EX_TEMPFAIL.
_PORT = 29500  # torchrun's default port.
_LOCAL = "127.0.0.1"


class Hosts(NamedTuple):
    """The hosts of a run, and the index of this host."""

    addresses: tuple[str, ...]  # "name:port" of each host; the other hosts connect to the first.
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  # It hides tuple.index.

    @property
    def first(self):
        """The name and port of the first host, which the others connect to."""
        name, _, port = self.addresses[0].rpartition(":")
        return name, int(port)


def read_hosts(hosts=None, host_index=None):
    """Return the hosts that `--hosts` and `--host-index` specify.

    Args:
        hosts: `"name:port,name:port"` or a list of such addresses, the same on every host; `"slurm"` for the hosts of
            the SLURM step of this process, which must have one task per host; None for this host alone.
        host_index: Index of this host in `hosts`, from 0. Only allowed if `hosts` contains addresses.

    Returns:
        `Hosts`, or None for this host alone.

    Raises:
        ValueError: An address has no port, the index is missing or out of range, or there is no SLURM step.
    """
    if hosts is None:
        if host_index is not None:
            raise ArgumentError(f"host_index={host_index!r} needs hosts: pass the addresses of all hosts.")
        return None
    if hosts == "slurm":
        if host_index is not None:
            raise ArgumentError(f"host_index={host_index!r} is not allowed with hosts='slurm', which sets the index.")
        return _read_slurm(os.environ)
    addresses = tuple(part.strip() for part in hosts.split(",")) if isinstance(hosts, str) else tuple(hosts)
    for address in addresses:
        name, _, port = address.rpartition(":")
        if not name or not port.isdigit() or not 0 < int(port) < 65536:
            raise ArgumentError(
                f"hosts={hosts!r} is not allowed: {address!r} must be name:port, such as node0:{_PORT}."
            )
    if len(set(addresses)) < len(addresses):
        raise ArgumentError(f"hosts={hosts!r} is not allowed: it contains an address twice.")
    if host_index is None:
        raise ArgumentError(
            f"hosts={hosts!r} needs host_index: pass the index of this host, from 0 to {len(addresses) - 1}."
        )
    host_index = integer("host_index", host_index, 0)
    if host_index >= len(addresses):
        raise ArgumentError(f"host_index={host_index!r} is not allowed: it must be at most {len(addresses) - 1}.")
    return Hosts(addresses, host_index)


def _read_slurm(environment):
    names = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST")
    tasks, index = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS"), "SLURM_PROCID"
    if not names or not tasks or index not in environment:
        raise ArgumentError("hosts='slurm' is not allowed: there is no SLURM step. Start the program with srun.")
    names = expand_nodes(names)
    if int(tasks) != len(names):
        raise ArgumentError(
            f"hosts='slurm' found {tasks} tasks on {len(names)} hosts: start one task per host with "
            "srun --ntasks-per-node=1, and set the number of its devices with --devices."
        )
    # Different jobs on the same host need different ports.
    port = _PORT + int(environment.get("SLURM_JOB_ID", 0)) % 1000
    return Hosts(tuple(f"{name}:{port}" for name in names), int(environment[index]))


def expand_nodes(nodes):
    """Return the hosts of SLURM's short form: `"gpu[01-03,7],login"` gives gpu01, gpu02, gpu03, gpu7 and login."""
    names = []
    for prefix, ranges, suffix in re.findall(r"([^,\[]+)(?:\[([^\]]*)\])?([^,\[]*)(?:,|$)", nodes):
        for part in ranges.split(",") if ranges else [""]:
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last) + 1) if last else [None]
            names += [f"{prefix}{first if i is None else f'{i:0{len(first)}}'}{suffix}" for i in numbers]
    return names


def no_response_message(hosts, timeout):
    """Return the message for hosts that don't respond."""
    return (
        f"Not all of {', '.join(hosts.addresses)} responded within {timeout} s (this is host {hosts.index}). Start the "
        "same command on each host, with its own --host-index, and check that the names resolve and the ports are open."
    )


@contextlib.contextmanager
def exit_on_timeout(hosts, timeout):
    """End the process if this context takes too long: frameworks wait in C++ code, which can't be interrupted."""

    def exit_process():
        print(no_response_message(hosts, timeout), file=sys.stderr, flush=True)
        os._exit(EXIT_NO_RESPONSE)

    timer = threading.Timer(timeout, exit_process)
    timer.daemon = True
    timer.start()
    # TensorFlow holds the GIL while it waits, so the timer's thread can't run. SIGALRM ends the process anyway, and
    # `launch` prints the message.
    alarm = getattr(signal, "alarm", lambda _: None)
    alarm(timeout + 2)
    try:
        yield
    finally:
        timer.cancel()
        alarm(0)


def free_port():
    """Return a port of this host that is currently free."""
    with socket.socket() as listener:
        listener.bind((_LOCAL, 0))
        return listener.getsockname()[1]
