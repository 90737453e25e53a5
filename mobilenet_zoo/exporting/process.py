"""Start and monitor the child process that writes files with another Keras backend."""

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
_POLL = 0.1  # seconds between two checks for new progress
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONWARNINGS": "ignore",
}


def run(backend, model_file, modules, jobs, folder, progress=None):
    """Run jobs in a child process with another Keras backend, and return their results.

    Args:
        backend: Name of the Keras backend.
        model_file: Path of the saved model.
        modules: Names of the modules to import before the model is loaded.
        jobs: List of `Job`s.
        folder: Folder for the messages between the two processes and for the child's temporary files.
        progress: Function that is called with `(job_number, text)` at the start of each step, or None.

    Returns:
        A list with the `Result` of each job.

    Raises:
        ExportError: The process failed, crashed, or took longer than half an hour.
    """
    job_file = Path(folder) / "jobs.json"
    job_file.write_text(
        json.dumps({"model": str(model_file), "modules": modules, "jobs": [job.as_json() for job in jobs]}),
        encoding="utf-8",
    )
    result_file, steps = job_file.with_name("results.json"), job_file.with_name("steps.txt")
    result_file.unlink(missing_ok=True)
    steps.write_text("", encoding="utf-8")
    command = [sys.executable, "-m", "mobilenet_zoo.exporting.worker", str(job_file)]
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # The parent process removes `folder` even if the child is killed, so temporary files go there.
    environment = {**os.environ, **_ENVIRONMENT, "KERAS_BACKEND": backend, "PYTHONPATH": path, "TMPDIR": str(folder)}
    log = job_file.with_name("log.txt")
    with open(log, "wb") as stream:
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        try:
            status = _watch(child, steps, progress)
        except BaseException:  # includes Ctrl-C and errors that `progress` raises
            child.kill()
            child.wait()
            raise
    if status is None:
        raise ExportError(f"The process that exports under {backend} did not finish within {_TIMEOUT} s.")
    if not result_file.exists():
        raise ExportError(f"The process that exports under {backend} {_exit_reason(status)}{_last_line(log)}")
    result = json.loads(result_file.read_text(encoding="utf-8"))
    if "error" in result:
        raise ExportError(result["error"])
    return [Result.from_json(record) for record in result["written"]]


def _watch(child, steps, progress: Callable | None):
    """Report the child's steps until it exits; return its exit status, or None if it was killed at the timeout."""
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


def _exit_reason(status):
    if status >= 0:
        return f"exited with status {status}"
    hint = ", probably because memory ran out" if -status == signal.SIGKILL else ""
    return f"was terminated by {signal.Signals(-status).name}{hint}"


def _last_line(log):
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f": {lines[-1]}" if lines else "."
