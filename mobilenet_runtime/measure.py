"""How fast an exported file runs and how much memory that takes, in a process of its own.

    python -m mobilenet_runtime.measure model.tflite --threads 1 --runs 20

prints one line of JSON. A process of its own, because peaks of memory and settings of threads are a process's, and
because a runtime that crashes takes its process with it.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from mobilenet_common.errors import ArgumentError, MobileNetError, either, integer, number
from mobilenet_runtime.file_formats import BY_ENDING, ENDINGS
from mobilenet_runtime.images import as_numpy
from mobilenet_runtime.runtimes import load
from mobilenet_runtime.runtimes.base import RuntimeFailure, RuntimeMissing

_MODULE = "mobilenet_runtime.measure"  # which is not its name while it is the program
_WARM_UP = 2
_TOLD = 2  # exit status of a child that says itself what is wrong


def measure(path, images=None, threads=None, runs=10, timeout=600):
    """Measure an exported file in a child process, which needs no Keras.

    Args:
        path: What `mobilenet_runtime.load` takes.
        images: `(batch, height, width, channels)` to answer as well, floats as the model takes them or integers in
            0..255; or None.
        threads: How many the runtime may use; None for its own choice.
        runs: How many single runs of one batch the latency is the median of, at least 1.
        timeout: Seconds after which the child is stopped.

    Returns:
        `(record, answers)`: a dictionary with `runtime`, `operations`, `placement`, `input_shape`, `output_names`,
        `latency_ms`, `fastest_ms` (of the fastest run), `peak_memory_mb` (None where the system doesn't tell), `load_s`
        (with importing the runtime) and `metadata`; and `{name: array}` of the outputs to the images, or None without
        them.

    Raises:
        ValueError: An argument is wrong, or the file takes no such images.
        RuntimeFailure: The runtime refuses the file, or the child died or took too long.
        RuntimeMissing: The library that runs the file is not installed.
    """
    command = [sys.executable, "-m", _MODULE, os.fspath(path), "--runs", str(integer("runs", runs, 1))]
    if threads is not None:
        command += ["--threads", str(integer("threads", threads, 1))]
    timeout = number("timeout", timeout, 0, 1e9, low_open=True)
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "images.npz", Path(folder) / "answers.npz"
        if images is not None:
            images = as_numpy(images)  # integers stay what they are, since they are pixels
            np.savez(given, images=images if images.dtype.kind in "ui" else images.astype("float32"))
            command += ["--images", str(given), "--answers", str(found)]
        record = _run(command, path, timeout)
        if images is None:
            return record, None
        with np.load(found) as arrays:
            return record, {name: arrays[name] for name in record["output_names"]}


def _run(command, path, timeout):
    """Return the record that a child prints."""
    # The child finds this package where this process did.
    paths = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    # TensorFlow imports Keras, which then imports its backend: PyTorch with Triton beside TensorFlow ends the process.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "KERAS_BACKEND": "tensorflow"}
    try:
        child = subprocess.run(command, env=environment, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        said = _last_line(error.stdout, error.stderr)
        raise RuntimeFailure(
            f"{path} was not measured within {timeout:g} s, and its process was stopped. The last that it printed: "
            f"{said} Allow it more by timeout, or fewer runs."
        ) from error
    record = _record(child.stdout)
    if child.returncode == _TOLD and record and "error" in record:
        raise (RuntimeMissing if record["missing"] else RuntimeFailure)(record["error"])
    if child.returncode or record is None:
        raise RuntimeFailure(
            f"{path} was not measured: its process ended with {_status(child.returncode)}. The last that it printed: "
            f"{_last_line(child.stdout, child.stderr)}"
        )
    return record


def _record(output):
    """Return the JSON in the last line, or None: a runtime may print what it likes before."""
    try:
        return json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        return None


def _status(code):
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _last_line(*outputs):
    """Return the last line of standard error, or of standard output where that is empty."""
    for output in reversed(outputs):
        lines = (output or b"").decode(errors="replace").strip().splitlines()
        if lines:
            return lines[-1].strip()
    return "nothing."


def size_of(path):
    """Return bytes of an exported file, with the weights beside it."""
    path = Path(path)
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    files = BY_ENDING[path.suffix].possible_files(path) if path.suffix in BY_ENDING else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def main(arguments=None):
    """Measure the file in this process and prints the record."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description="Measure an exported file.")
    parser.add_argument("file", help=f"a {either(ENDINGS)} file, or the folder of a SavedModel")
    parser.add_argument("--images", help="an .npz file with images to answer, (batch, height, width, channels)")
    parser.add_argument("--answers", help="the .npz file that the outputs are written to")
    parser.add_argument("--threads", type=int, help="how many the runtime may use")
    parser.add_argument("--runs", type=int, default=10, help="how many runs the latency is the median of")
    options = parser.parse_args(arguments)
    if (options.images is None) != (options.answers is None):
        parser.error("--images and --answers belong together")
    try:
        record = _measured(options)
    except MobileNetError as error:
        print(json.dumps({"error": str(error), "missing": isinstance(error, RuntimeMissing)}), flush=True)
        return _TOLD
    print(json.dumps(record), flush=True)
    return 0


def _measured(options):
    start = time.perf_counter()
    model = load(options.file, options.threads)
    load_s = time.perf_counter() - start
    height, width = _shape(options.images)[1:3] if options.images else model.size
    _, _, channels = model.image_shape
    batch = np.random.default_rng(0).normal(size=(model.batch_size or 1, height, width, channels or 3))
    batch = batch.astype("float32")
    times = []
    for _ in range(_WARM_UP + integer("runs", options.runs, 1)):
        start = time.perf_counter()
        model.outputs(batch)
        times.append(time.perf_counter() - start)
    peak = peak_memory()  # before anything that only measuring needs
    if options.images:
        with np.load(options.images) as arrays:
            answers = model(arrays["images"])
        _save(options.answers, answers if isinstance(answers, dict) else {model.output_names[0]: answers})
    return {
        "runtime": model.runtime,
        "operations": model.operations(),
        "placement": model.placement(),
        "input_shape": model.input_shape,
        "output_names": model.output_names,
        "latency_ms": 1e3 * statistics.median(times[_WARM_UP:]),
        "fastest_ms": 1e3 * min(times[_WARM_UP:]),
        "peak_memory_mb": None if peak is None else peak / 1e6,
        "load_s": load_s,
        "metadata": model.metadata and json.loads(model.metadata.as_json()),
    }


def _shape(path):
    """Return the shape of the images in an .npz file, which are not read before the peak of memory is."""
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
    if len(shape) != 4:
        raise ArgumentError(f"images of shape {shape} are not allowed: they must be (batch, height, width, channels).")
    return shape


def _save(path, answers):
    """Save arrays as `np.savez` does, which takes no array called `file`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in answers.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array)


def peak_memory():
    """Return the most bytes that this process has held, or None where the system doesn't tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes there
    return None


if __name__ == "__main__":
    sys.exit(main())
