"""Measure the speed and peak memory of an exported file in a separate process.

    python -m mobilenet_runtime.measure model.tflite --threads 1 --runs 20

This command prints one line of JSON. Each measurement needs its own process because peak memory and thread settings
belong to a process, and because a crashing runtime ends its process.
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

_MODULE = "mobilenet_runtime.measure"  # `__name__` is "__main__" when this file is the program
_WARM_UP = 2
_REPORTED = 2  # exit status of a child process that printed its error as JSON


def measure(path, images=None, threads=None, runs=10, timeout=600):
    """Measure an exported file in a child process. Requires no Keras.

    Args:
        path: Path of an exported file, or of the folder of a SavedModel, as for `mobilenet_runtime.load`.
        images: Images whose outputs to return, of shape `(batch, height, width, channels)`: floats in the range that
            the model expects, or integers in 0..255. None returns no outputs.
        threads: Number of threads that the runtime may use; None for the runtime's default.
        runs: Number of runs of one batch whose median is the latency, at least 1.
        timeout: Seconds after which the child process is stopped.

    Returns:
        A tuple `(record, outputs)`. The record is a dictionary with `runtime`, `operations`, `placement`,
        `input_shape`, `output_names`, `latency_ms`, `fastest_ms` (the fastest run), `peak_memory_mb` (None if the
        system doesn't report it), `load_s` (including the import of the runtime) and `metadata`. The outputs are
        `{name: array}` for the images, or None without images.

    Raises:
        ValueError: If an argument is wrong, or if the images don't fit the model.
        RuntimeFailure: If the runtime can't run the file, or if the child process died or took too long.
        RuntimeMissing: If the library that runs the file is not installed.
    """
    command = [sys.executable, "-m", _MODULE, os.fspath(path), "--runs", str(integer("runs", runs, 1))]
    if threads is not None:
        command += ["--threads", str(integer("threads", threads, 1))]
    timeout = number("timeout", timeout, 0, 1e9, low_open=True)
    with tempfile.TemporaryDirectory() as folder:
        images_path, outputs_path = Path(folder) / "images.npz", Path(folder) / "outputs.npz"
        if images is not None:
            images = as_numpy(images)  # integers keep their type, which marks them as pixels
            np.savez(images_path, images=images if images.dtype.kind in "ui" else images.astype("float32"))
            command += ["--images", str(images_path), "--outputs", str(outputs_path)]
        record = _run(command, path, timeout)
        if images is None:
            return record, None
        with np.load(outputs_path) as arrays:
            return record, {name: arrays[name] for name in record["output_names"]}


def _run(command, path, timeout):
    """Run the command in a child process and return the record that it prints."""
    # The child process imports this package from the same place as this process.
    paths = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    # TensorFlow imports Keras, and Keras its backend. If that were PyTorch with Triton, the process would crash.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "KERAS_BACKEND": "tensorflow"}
    try:
        child = subprocess.run(command, env=environment, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        last_line = _last_line(error.stdout, error.stderr)
        raise RuntimeFailure(
            f"{path} was not measured within {timeout:g} s, and its process was stopped: increase timeout or reduce "
            f"runs. Its last line of output: {last_line}"
        ) from error
    record = _record(child.stdout)
    if child.returncode == _REPORTED and record and "error" in record:
        raise (RuntimeMissing if record["missing"] else RuntimeFailure)(record["error"])
    if child.returncode or record is None:
        raise RuntimeFailure(
            f"{path} was not measured: its process ended with {_status(child.returncode)}. Its last line of output: "
            f"{_last_line(child.stdout, child.stderr)}"
        )
    return record


def _record(output):
    """Return the JSON in the last line, or None. Earlier lines may be output of the runtime."""
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
    """Return the last line of standard error, or of standard output if standard error is empty."""
    for output in reversed(outputs):
        lines = (output or b"").decode(errors="replace").strip().splitlines()
        if lines:
            return lines[-1].strip()
    return "nothing."


def size_of(path):
    """Return the size of an exported file in bytes, including separate files of weights."""
    path = Path(path)
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    files = BY_ENDING[path.suffix].possible_files(path) if path.suffix in BY_ENDING else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def main(arguments=None):
    """Measure a file in this process and print the record. Return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description="Measure an exported file.")
    parser.add_argument("file", help=f"a {either(ENDINGS)} file, or the folder of a SavedModel")
    parser.add_argument("--images", help="an .npz file with images to predict, (batch, height, width, channels)")
    parser.add_argument("--outputs", help="the .npz file to write the outputs to")
    parser.add_argument("--threads", type=int, help="number of threads that the runtime may use")
    parser.add_argument("--runs", type=int, default=10, help="number of runs whose median is the latency (default: 10)")
    options = parser.parse_args(arguments)
    if (options.images is None) != (options.outputs is None):
        parser.error("--images and --outputs must be given together")
    try:
        record = _measured(options)
    except MobileNetError as error:
        print(json.dumps({"error": str(error), "missing": isinstance(error, RuntimeMissing)}), flush=True)
        return _REPORTED
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
    peak = peak_memory()  # read before the images are loaded, which would add to it
    if options.images:
        with np.load(options.images) as arrays:
            outputs = model(arrays["images"])
        _save(options.outputs, outputs if isinstance(outputs, dict) else {model.output_names[0]: outputs})
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
    """Return the shape of the images in an .npz file without loading them, which would raise the peak memory."""
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
    if len(shape) != 4:
        raise ArgumentError(f"images of shape {shape} are not allowed: they must be (batch, height, width, channels).")
    return shape


def _save(path, arrays):
    """Save arrays by name to an .npz file. `np.savez` doesn't accept an array named `file`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array)


def peak_memory():
    """Return the peak memory of this process in bytes, or None if the system doesn't report it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    return None


if __name__ == "__main__":
    sys.exit(main())
