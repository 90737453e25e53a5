"""The process that writes: started under another backend, watched, and its end explained."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mobilenet_common.errors import ExportError
from mobilenet_zoo.exporting.job import Result

_TIMEOUT = 1800  # seconds
_POLL = 0.1  # seconds between two looks at what the process has reported
_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONWARNINGS": "ignore",
}


def run(backend, model_file, modules, jobs, folder, progress=None):
    """Run `jobs` under `backend`; return the result of each.

    Args:
        backend: Of Keras.
        model_file: Where the model was saved.
        modules: Names of modules to import before it is loaded.
        jobs: `Job`s.
        folder: For the messages between the two processes, and for all temporary files of the tools.
        progress: Called with `(job's number, text)` for each step that begins, or None.

    Raises:
        ExportError: The process failed, died or took half an hour.
    """
    order = Path(folder) / "order.json"
    order.write_text(
        json.dumps({"model": str(model_file), "modules": modules, "jobs": [job.as_json() for job in jobs]}),
        encoding="utf-8",
    )
    answer, steps = order.with_name("answer.json"), order.with_name("steps.txt")
    answer.unlink(missing_ok=True)
    steps.write_text("", encoding="utf-8")
    command = [sys.executable, "-m", "mobilenet_zoo.exporting.worker", str(order)]
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # The tools' temporary files go where they are removed even if the process is killed.
    environment = {**os.environ, **_QUIET, "KERAS_BACKEND": backend, "PYTHONPATH": path, "TMPDIR": str(folder)}
    log = order.with_name("log.txt")
    with open(log, "wb") as stream:
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        try:
            status = _watch(child, steps, progress)
        except BaseException:  # a timeout, Ctrl-C, or an error of `progress`
            child.kill()
            child.wait()
            raise
    if status is None:
        raise ExportError(f"The process that exports under {backend} did not end within {_TIMEOUT} s.")
    if not answer.exists():
        raise ExportError(f"The process that exports under {backend} {_end(status)}{_last_words(log)}")
    result = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in result:
        raise ExportError(result["error"])
    return [Result.from_json(record) for record in result["written"]]


def _watch(child, steps, progress: Callable | None):
    """Report the child's steps until it ends; return its exit status, or None if it took too long and was killed."""
    end = time.monotonic() + _TIMEOUT
    with open(steps, encoding="utf-8") as lines:
        while True:
            try:
                status = child.wait(_POLL)
            except subprocess.TimeoutExpired:
                status = None
            if progress is not None:
                for line in lines:
                    number, _, text = line.rstrip("\n").partition("\t")
                    progress(int(number), text)
            if status is not None:
                return status
            if time.monotonic() > end:
                child.kill()
                child.wait()
                return None


def _end(status):
    if status >= 0:
        return f"ended with status {status}"
    hint = ", as when memory is short" if -status == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{hint}"


def _last_words(log):
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f": {lines[-1]}" if lines else "."
