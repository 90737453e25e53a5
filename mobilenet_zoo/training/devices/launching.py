"""Starting the training processes of a host, and reporting why a process ended."""

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
from mobilenet_zoo.training.devices.hosts import EXIT_NO_RESPONSE, Hosts, free_port, no_response_message, read_hosts

_LAUNCHED_VARIABLE = "MOBILENET_ZOO_LAUNCHED"
_SIGNAL_OFFSET = 128  # Shells add this to the number of the signal that ended a process.
_USAGE_ERROR = 2  # The exit status for invalid arguments. Repeating the command would not help.


def needs_launch(devices=1, hosts=None):
    """Return whether a program must run itself again with `launch` to use these devices.

    It must if `hosts` is given, because the launcher reports why a process ended (JAX aborts when it loses another
    process), and under PyTorch if `devices` is not 1, because each device needs its own process. A process that
    `launch` or torchrun has started never needs it.

    Args:
        devices: Number of devices of this host; None for all accelerators.
        hosts: Hosts of the run, as in `open_cluster`.
    """
    if _LAUNCHED_VARIABLE in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        return False
    return hosts is not None or (keras.backend.backend() == "torch" and devices != 1)


def launch(arguments, devices=1, hosts=None, host_index=None, *, timeout=300, grace=30, stopped_status=None):
    """Run a Python program in the processes that this host needs, and wait for them.

    The program must call `open_cluster` with the same devices and hosts. If a process fails, the other processes are
    ended and the reason is printed. SIGTERM is forwarded to the processes.

    Args:
        arguments: Arguments of Python, such as `["-m", "mobilenet_cli", "train", ...]`.
        devices: Number of devices of this host; None for all accelerators.
        hosts: Hosts of the run, as in `open_cluster`.
        host_index: Index of this host, as in `open_cluster`.
        timeout: Seconds to wait for the other hosts.
        grace: Seconds between SIGTERM and SIGKILL in which the processes can exit by themselves, for example after
            saving a checkpoint.
        stopped_status: Exit status that the program uses after SIGTERM, or None. It isn't treated as a failure, so
            nothing is printed.

    Returns:
        The exit status: 0, `stopped_status`, the status of the process that failed, 128 plus the number of the signal
        that ended it, or 75 if a host didn't respond.
    """
    timeout = integer("timeout", timeout, 1)
    backend = keras.backend.backend()
    if devices is None:
        devices = _count_accelerators() if backend == "torch" else 1
    devices = integer("devices", devices, 1)
    resolved_hosts = read_hosts(hosts, host_index) if hosts != "tpu" else None
    arguments = [str(argument) for argument in arguments]
    with _mark_as_launched():
        if backend == "torch":
            resolved_hosts = resolved_hosts or Hosts((f"127.0.0.1:{free_port()}",), 0)
            return _run_elastic(arguments, devices, resolved_hosts, timeout, grace, stopped_status)
        return _run_one(arguments, resolved_hosts, timeout, grace, stopped_status)


@contextlib.contextmanager
def _mark_as_launched():
    os.environ[_LAUNCHED_VARIABLE] = "1"
    try:
        yield
    finally:
        del os.environ[_LAUNCHED_VARIABLE]


def _count_accelerators():
    import torch

    return torch.cuda.device_count() or 1


def _run_one(arguments, hosts, timeout, grace, stopped_status):
    """Run the program in one process, since JAX and TensorFlow use one per host, and return the exit status."""
    child = subprocess.Popen([sys.executable, *arguments])
    deadline = None

    def forward_signal(signal_number, _):
        nonlocal deadline
        deadline = time.monotonic() + grace
        child.send_signal(signal_number)

    # The terminal sends Ctrl-C to the child too, so this process doesn't forward it.
    handlers = {signal.SIGTERM: forward_signal, signal.SIGINT: lambda *_: None}
    previous_handlers = {
        signal_number: signal.signal(signal_number, handler) for signal_number, handler in handlers.items()
    }
    try:
        while child.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                print(f"The process did not exit within {grace} s, so it is killed.", file=sys.stderr, flush=True)
                child.kill()
                child.wait()
            time.sleep(0.1)
    finally:
        for signal_number, handler in previous_handlers.items():
            signal.signal(signal_number, handler)
    status = child.returncode
    if hosts and status == -signal.SIGALRM:  # The alarm of `exit_on_timeout`.
        print(no_response_message(hosts, timeout), file=sys.stderr, flush=True)
        return EXIT_NO_RESPONSE
    index, count = (hosts.index, len(hosts.addresses)) if hosts else (0, 1)
    if status not in (0, stopped_status, EXIT_NO_RESPONSE):  # Not failures, or already reported.
        _report_exit(index, count, child.pid, status)
    return _exit_status(status)


def _run_elastic(arguments, devices, hosts, timeout, grace, stopped_status):
    """Run the program in one process per device with torchrun's launcher, and return the exit status."""
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # This module prints the messages itself.
    name, port = hosts.first
    config = LaunchConfig(
        min_nodes=len(hosts.addresses),
        max_nodes=len(hosts.addresses),
        nproc_per_node=devices,
        run_id=str(port) if len(hosts.addresses) > 1 else uuid.uuid4().hex,  # All hosts need the same ID.
        rdzv_backend="static",
        rdzv_endpoint=f"{name}:{port}",
        rdzv_configs={"rank": hosts.index, "timeout": timeout},
        max_restarts=0,  # To restart from a checkpoint, the user repeats the command with --resume.
        logs_specs=DefaultLogsSpecs(),
        shutdown_timeout=grace,
    )
    try:
        elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda item: _failure_priority(item[1].exitcode))
        if failure.exitcode != stopped_status:
            _report_exit(rank, devices * len(hosts.addresses), failure.pid, failure.exitcode)
        return _exit_status(failure.exitcode)
    except SignalException as error:
        return _SIGNAL_OFFSET + error.sigval if stopped_status is None else stopped_status
    except (DistError, TimeoutError):
        print(no_response_message(hosts, timeout), file=sys.stderr, flush=True)
        return EXIT_NO_RESPONSE
    return 0


def _failure_priority(status):
    """Return a sort key that puts likely causes first: killed processes, then failed ones, then those sent SIGTERM."""
    return 2 if status == -signal.SIGTERM else 1 if status >= 0 else 0  # The launcher itself sends SIGTERM.


def _exit_status(status):
    return status if status >= 0 else _SIGNAL_OFFSET - status


def _report_exit(index, count, pid, status):
    if status >= 0:
        reason = f"exited with status {status}; its own message is above"
    else:
        reason = f"was ended by {signal.Signals(-status).name}"
        if -status == signal.SIGKILL:
            reason += ", which the system sends when memory runs out"
        elif -status == signal.SIGABRT and count > 1:
            reason += ", which is how JAX ends after losing another process: look for the cause on the other hosts"
    lines = [f"Process {index} of {count} (pid {pid}) {reason}."]
    if count > 1:
        lines.append("The other processes can't continue without it and end as well.")
    if status != _USAGE_ERROR:
        lines.append("Start the same command again on every host, with --resume to resume from the last checkpoint.")
    print("\n".join(lines), file=sys.stderr, flush=True)
