"""Starts runs of `devices_worker` as users start training: a launcher on each host, here all on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mobilenet_zoo.training.devices.hosts import free_port

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600  # seconds after which a run counts as hanging

_started = []

_LAUNCHER = """
import json, sys
from mobilenet_zoo.training.devices import launch
order = json.loads(sys.argv[1])
options = {name: order[name] for name in ("devices", "hosts", "host_index", "timeout") if name in order}
sys.exit(launch(["-m", sys.argv[2], sys.argv[1]], **options, grace=20, stopped_status=3))
"""


class Host:
    """A launcher and what it leaves."""

    def __init__(self, order, module="tests.training.devices_worker"):
        threads = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "NPROC": "1"}
        self.log = Path(order["folder"], f"host{order.get('host_index', 0)}.log")
        command = [sys.executable, "-W", "ignore", "-c", _LAUNCHER, json.dumps(order), module]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | threads | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _started.append(self.process)

    def status(self, limit=LIMIT):
        """The launcher's exit status; it fails where that doesn't come."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end after {limit} s:\n{self.text()}") from None

    def text(self):
        return self.log.read_text()


def start(folder, devices=1, hosts=1, module="tests.training.devices_worker", **order):
    """A launcher for each host."""
    folder.mkdir(exist_ok=True)
    order |= {"folder": str(folder), "devices": devices}
    if hosts == 1:
        return [Host(order, module)]
    names = ",".join(f"127.0.0.1:{free_port()}" for _ in range(hosts))
    return [Host(order | {"hosts": names, "host_index": i}, module) for i in range(hosts)]


def results(folder, **order):
    """What every process of a run saw, in order."""
    for host in start(folder, **order):
        assert host.status() == 0, host.text()
    return [json.loads(path.read_text()) for path in sorted(folder.glob("result.process*.json"))]


def end_all():
    """Ends what a failing test left running."""
    for process in _started:
        if process.poll() is None:
            process.terminate()  # which PyTorch's launcher hands on to its processes, in sessions of their own
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
    _started.clear()


def wait_for(path, host, limit=LIMIT):
    """Returns when there is a file, and says when it was made."""
    end = time.monotonic() + limit
    while not path.exists():
        assert host.process.poll() is None and time.monotonic() < end, host.text()
        time.sleep(0.05)
    return path.stat().st_mtime
