"""Starting the processes of one host, and saying why one of them ended."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
import uuid

import keras

from mobilenet_common.errors import integer
from mobilenet_zoo.training.devices.hosts import NO_ANSWER, Hosts, free_port, read_hosts, silent

_MARK = "MOBILENET_ZOO_LAUNCHED"
_INTERRUPTED = 128  # a shell adds the signal to it
_WRONG_INPUT = 2  # a program's status where its own arguments are wrong: the same command would end the same way


def needs_launch(devices=1, hosts=None):
    """Return whether a program that is to use these devices should go on in processes that `launch` starts.

    That is so with several hosts, where a launcher tells why a process ended (JAX aborts when another is lost), and
    under PyTorch with several devices, which have a process each. In such a process, or one of torchrun's, it is not.
    """
    if _MARK in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        return False
    return hosts is not None or (keras.backend.backend() == "torch" and devices != 1)


def launch(arguments, devices=1, hosts=None, host_index=None, *, timeout=300, grace=30, stopped_status=None):
    """Run a Python program in the processes that this host needs, and wait for them.

    The program opens its cluster with the same devices and hosts. When one process ends badly the others are ended,
    and what happened is printed. SIGTERM goes on to the processes.

    Args:
        arguments: Of Python, as in `["-m", "mobilenet_cli", "train", ...]`.
        devices: Of this host; None for all accelerators.
        hosts: As `open_cluster`.
        host_index: As `open_cluster`.
        timeout: Seconds to wait for the other hosts.
        grace: Seconds that processes have for their own end, for instance to save after SIGTERM, before SIGKILL.
        stopped_status: The status with which the program leaves after SIGTERM, which is no failure: nothing is printed.

    Returns:
        The exit status: 0, that of the process that failed, 128 plus the signal that ended it, or 75 where a host did
        not answer.
    """
    timeout = integer("timeout", timeout, 1)
    backend = keras.backend.backend()
    if devices is None:
        devices = _accelerators() if backend == "torch" else 1
    devices = integer("devices", devices, 1)
    where = read_hosts(hosts, host_index) if hosts != "tpu" else None
    arguments = [str(argument) for argument in arguments]
    with _marked():
        if backend == "torch":
            where = where or Hosts((f"127.0.0.1:{free_port()}",), 0)
            return _run_elastic(arguments, devices, where, timeout, grace, stopped_status)
        return _run_one(arguments, where, timeout, grace, stopped_status)


@contextlib.contextmanager
def _marked():
    os.environ[_MARK] = "1"
    try:
        yield
    finally:
        del os.environ[_MARK]


def _accelerators():
    import torch

    return torch.cuda.device_count() or 1


def _run_one(arguments, hosts, timeout, grace, stopped_status):
    """Return one process, as JAX and TensorFlow need on each host."""
    child = subprocess.Popen([sys.executable, *arguments])
    deadline = None

    def pass_on(number, _):
        nonlocal deadline
        deadline = time.monotonic() + grace
        child.send_signal(number)

    # Ctrl-C reaches the child by itself, which belongs to the same terminal.
    handlers = {signal.SIGTERM: pass_on, signal.SIGINT: lambda *_: None}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        while child.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                print(f"After {grace} s of grace the process is killed.", file=sys.stderr, flush=True)
                child.kill()
                child.wait()
            time.sleep(0.1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    status = child.returncode
    if hosts and status == -signal.SIGALRM:  # the alarm of `answering`
        print(silent(hosts, timeout), file=sys.stderr, flush=True)
        return NO_ANSWER
    index, count = (hosts.index, len(hosts.addresses)) if hosts else (0, 1)
    if status not in (0, stopped_status, NO_ANSWER):  # which the process itself has explained
        _tell(index, count, child.pid, status)
    return _as_status(status)


def _run_elastic(arguments, devices, hosts, timeout, grace, stopped_status):
    """Return a process for each device, by torchrun's launcher."""
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it says is said below
    name, port = hosts.first
    config = LaunchConfig(
        min_nodes=len(hosts.addresses),
        max_nodes=len(hosts.addresses),
        nproc_per_node=devices,
        run_id=str(port) if len(hosts.addresses) > 1 else uuid.uuid4().hex,
        rdzv_backend="static",
        rdzv_endpoint=f"{name}:{port}",
        rdzv_configs={"rank": hosts.index, "timeout": timeout},
        max_restarts=0,  # a run resumes from its checkpoint, by the same command
        logs_specs=DefaultLogsSpecs(),
        shutdown_timeout=grace,
    )
    try:
        elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda item: _blame(item[1].exitcode))
        if failure.exitcode != stopped_status:
            _tell(rank, devices * len(hosts.addresses), failure.pid, failure.exitcode)
        return _as_status(failure.exitcode)
    except SignalException as error:
        return _INTERRUPTED + error.sigval if stopped_status is None else stopped_status
    except (DistError, TimeoutError):
        print(silent(hosts, timeout), file=sys.stderr, flush=True)
        return NO_ANSWER
    return 0


def _blame(status):
    """Return a sort key: of processes that ended together, one that was killed is the cause of the others' failures."""
    return 2 if status == -signal.SIGTERM else 1 if status >= 0 else 0  # SIGTERM is what the launcher sends


def _as_status(status):
    return status if status >= 0 else _INTERRUPTED - status


def _tell(index, count, pid, status):
    if status >= 0:
        how = f"ended with exit status {status}; its own message is above"
    else:
        how = f"was ended by {signal.Signals(-status).name}"
        if -status == signal.SIGKILL:
            how += ", which the system sends where memory runs out"
        elif -status == signal.SIGABRT and count > 1:
            how += ", which is how JAX ends when it has lost another process: look for the reason on the other hosts"
    lines = [f"Process {index} of {count} (pid {pid}) {how}."]
    if count > 1:
        lines.append("The other processes can't continue without it and end as well.")
    if status != _WRONG_INPUT:
        lines.append("Start the same command again on every host, with --resume to resume from the last checkpoint.")
    print("\n".join(lines), file=sys.stderr, flush=True)
