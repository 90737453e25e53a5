"""The process that writes: started under another backend, watched, and its end explained."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from mobilenet_common.errors import ExportError

_TIMEOUT = 1800  # seconds
_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONWARNINGS": "ignore",
}


def run(backend, model_file, modules, jobs, folder):
    """Has `jobs` done under `backend`; returns what the process says of each.

    Args:
        backend: Of Keras.
        model_file: Where the model was saved.
        modules: Names of modules to import before it is loaded.
        jobs: See `worker.write`.
        folder: For the messages between the two processes.

    Raises:
        ExportError: The process failed, died or took half an hour.
    """
    order = Path(folder) / "order.json"
    order.write_text(json.dumps({"model": str(model_file), "modules": modules, "jobs": jobs}), encoding="utf-8")
    answer = order.with_name("answer.json")
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "mobilenet_zoo.exporting.worker", str(order)]
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    environment = {**os.environ, **_QUIET, "KERAS_BACKEND": backend, "PYTHONPATH": path}
    log = order.with_name("log.txt")
    with open(log, "wb") as stream:
        try:
            status = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, timeout=_TIMEOUT
            ).returncode
        except subprocess.TimeoutExpired:
            raise ExportError(f"The process that exports under {backend} did not end within {_TIMEOUT} s.") from None
    if not answer.exists():
        raise ExportError(f"The process that exports under {backend} {_end(status)}{_last_words(log)}")
    said = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in said:
        raise ExportError(said["error"])
    return said["written"]


def _end(status):
    if status >= 0:
        return f"ended with status {status}"
    hint = ", as when memory is short" if -status == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{hint}"


def _last_words(log):
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f": {lines[-1]}" if lines else "."
