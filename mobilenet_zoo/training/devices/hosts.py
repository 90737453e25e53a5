"""Which hosts a run has, and which of them this is."""

import contextlib
import os
import re
import signal
import socket
import sys
import threading
from typing import NamedTuple

from mobilenet_common.errors import ArgumentError, integer

NO_ANSWER = 75  # the exit status where a host doesn't answer: EX_TEMPFAIL
_PORT = 29500  # torchrun's
_LOCAL = "127.0.0.1"


class Hosts(NamedTuple):
    """The hosts of a run, and this one's place among them."""

    addresses: tuple[str, ...]  # "name:port"; the first is where the others report
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  # hides tuple.index

    @property
    def first(self):
        """The name and port of the host that the others report to."""
        name, _, port = self.addresses[0].rpartition(":")
        return name, int(port)


def read_hosts(hosts=None, host_index=None):
    """Read what `--hosts` and `--host-index` say.

    Args:
        hosts: `"name:port,name:port"` or a list of those, the same on every host; `"slurm"` for what SLURM says of the
            step that runs this process, which has one task a host; None for this host alone.
        host_index: Which of `hosts` this is, from 0; only with names.

    Returns:
        `Hosts`, or None for this host alone.

    Raises:
        ValueError: An address without a port, an index that is missing or out of range, no SLURM step.
    """
    if hosts is None:
        if host_index is not None:
            raise ArgumentError(f"host_index={host_index!r} needs hosts: which hosts are there?")
        return None
    if hosts == "slurm":
        if host_index is not None:
            raise ArgumentError(f"host_index={host_index!r} is not allowed with hosts='slurm', which knows it.")
        return _of_slurm(os.environ)
    addresses = tuple(part.strip() for part in hosts.split(",")) if isinstance(hosts, str) else tuple(hosts)
    for address in addresses:
        name, _, port = address.rpartition(":")
        if not name or not port.isdigit() or not 0 < int(port) < 65536:
            raise ArgumentError(
                f"hosts={hosts!r} is not allowed: {address!r} must be name:port, such as node0:{_PORT}."
            )
    if len(set(addresses)) < len(addresses):
        raise ArgumentError(f"hosts={hosts!r} is not allowed: an address is there twice.")
    if host_index is None:
        raise ArgumentError(f"hosts={hosts!r} needs host_index: which of them is this, from 0 to {len(addresses) - 1}?")
    host_index = integer("host_index", host_index, 0)
    if host_index >= len(addresses):
        raise ArgumentError(f"host_index={host_index!r} is not allowed: it must be at most {len(addresses) - 1}.")
    return Hosts(addresses, host_index)


def _of_slurm(environment):
    names = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST")
    tasks, index = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS"), "SLURM_PROCID"
    if not names or not tasks or index not in environment:
        raise ArgumentError("hosts='slurm' finds no SLURM step around it: start the program with srun.")
    names = expand_nodes(names)
    if int(tasks) != len(names):
        raise ArgumentError(
            f"hosts='slurm' found {tasks} tasks on {len(names)} hosts: start one task a host, "
            "srun --ntasks-per-node=1, and name its devices with --devices."
        )
    # Jobs that share a host must not share a port.
    port = _PORT + int(environment.get("SLURM_JOB_ID", 0)) % 1000
    return Hosts(tuple(f"{name}:{port}" for name in names), int(environment[index]))


def expand_nodes(nodes):
    """Return the hosts in SLURM's short form: `"gpu[01-03,7],login"` gives gpu01, gpu02, gpu03, gpu7, login."""
    names = []
    for prefix, ranges, suffix in re.findall(r"([^,\[]+)(?:\[([^\]]*)\])?([^,\[]*)(?:,|$)", nodes):
        for part in ranges.split(",") if ranges else [""]:
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last) + 1) if last else [None]
            names += [f"{prefix}{first if i is None else f'{i:0{len(first)}}'}{suffix}" for i in numbers]
    return names


def silent(hosts, timeout):
    """Return what to say where hosts don't answer."""
    return (
        f"Not all of {', '.join(hosts.addresses)} answered within {timeout} s (this is host {hosts.index}). Start the "
        "same command on each, with its own --host-index, and check that the names resolve and the ports are open."
    )


@contextlib.contextmanager
def answering(hosts, timeout):
    """End the process where this scope takes longer: frameworks wait in C++, which nothing interrupts."""

    def leave():
        print(silent(hosts, timeout), file=sys.stderr, flush=True)
        os._exit(NO_ANSWER)

    timer = threading.Timer(timeout, leave)
    timer.daemon = True
    timer.start()
    # TensorFlow waits with Python's lock held, so that no thread can speak; the system's alarm ends it all the same,
    # and `launch` says why.
    alarm = getattr(signal, "alarm", lambda _: None)
    alarm(timeout + 2)
    try:
        yield
    finally:
        timer.cancel()
        alarm(0)


def free_port():
    """Return a port of this host that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((_LOCAL, 0))
        return listener.getsockname()[1]
