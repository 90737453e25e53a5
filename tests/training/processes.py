"""Start the worker programs as users start training: one launcher per host, here all on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mobilenet_zoo.training.devices import launch
from mobilenet_zoo.training.devices.hosts import free_port

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600  # seconds after which a run is considered to hang

_started = []

_LAUNCHER = """
import json, sys
from mobilenet_zoo.training.devices import launch
config = json.loads(sys.argv[1])
options = {name: config[name] for name in ("devices", "hosts", "host_index", "timeout") if name in config}
sys.exit(launch(["-m", *sys.argv[2].split(), sys.argv[1]], **options, grace=20, stopped_status=3))
"""
FIT = "tests.lean tests.training.devices_worker"
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "NPROC": "1",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}


class Host:
    """Launcher of one host, and its log file."""

    def __init__(self, config, module=FIT):
        self.log = Path(config["folder"], f"host{config.get('host_index', 0)}.log")
        command = [sys.executable, "-W", "ignore", "-c", _LAUNCHER, json.dumps(config), module]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | _ENVIRONMENT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _started.append(self.process)

    def status(self, limit=LIMIT):
        """Return the launcher's exit status; fail if it doesn't end within `limit` seconds."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the launcher did not end within {limit} s:\n{self.text()}") from None

    def text(self):
        return self.log.read_text()


def start(folder, devices=1, hosts=1, module=FIT, **config):
    """Start a launcher for each host, and return the hosts."""
    folder.mkdir(exist_ok=True)
    config |= {"folder": str(folder), "devices": devices}
    if hosts == 1:
        return [Host(config, module)]
    addresses = ",".join(f"127.0.0.1:{free_port()}" for _ in range(hosts))
    return [Host(config | {"hosts": addresses, "host_index": i}, module) for i in range(hosts)]


def launch_here(folder, devices=1, module=FIT, **config):
    """Run a worker on one host with this process as its launcher, which saves importing Keras once more."""
    folder.mkdir(exist_ok=True)
    config |= {"folder": str(folder), "devices": devices}
    names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")  # PyTorch's launcher replaces their handlers.
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            for name, value in _ENVIRONMENT.items():
                patch.setenv(name, value)
            assert launch(["-m", *module.split(), json.dumps(config)], devices=devices, grace=20) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def results(folder, hosts=1, **config):
    """Run the worker, and return what each process recorded, ordered by process index."""
    if hosts == 1:
        launch_here(folder, **config)
    else:
        for host in start(folder, hosts=hosts, **config):
            assert host.status() == 0, host.text()
    return [json.loads(path.read_text()) for path in sorted(folder.glob("result.process*.json"))]


def end_all():
    """End the launchers that a failed test left running."""
    for process in _started:
        if process.poll() is None:
            process.terminate()  # PyTorch's launcher forwards it to its processes, which are in other sessions
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
    _started.clear()


def wait_for(path, host, limit=LIMIT):
    """Wait until a file exists, and return its modification time."""
    deadline = time.monotonic() + limit
    while not path.exists():
        assert host.process.poll() is None and time.monotonic() < deadline, host.text()
        time.sleep(0.05)
    return path.stat().st_mtime
