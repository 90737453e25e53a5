"""Program of the child process that writes files: `python -m mobilenet_zoo.exporting.worker jobs.json`.

It runs with the Keras backend that suits the format, reads the jobs from a JSON file that `process.py` wrote, and
writes the results to `results.json` in the same folder.
"""

import dataclasses
import functools
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import mobilenet_zoo  # noqa: F401 - registers the layers
from mobilenet_common.errors import ExportError
from mobilenet_runtime.embedding import embed
from mobilenet_runtime.metadata import Metadata
from mobilenet_zoo.exporting.destination import size_on_disk
from mobilenet_zoo.exporting.formats import FORMATS
from mobilenet_zoo.exporting.integers import improve, limit_images
from mobilenet_zoo.exporting.job import Job, Result
from mobilenet_zoo.exporting.prepared import data_format_of, prepare, with_blocks
from mobilenet_zoo.exporting.progress import steps_of
from mobilenet_zoo.exporting.quantizing import FULL, QUANTIZERS, REDUCED
from mobilenet_zoo.exporting.simulation import Simulation

_RANKING_IMAGES = 16  # images used to rank layers


def main(job_file):
    """Run the jobs in the JSON file `job_file`, and write `results.json` to the same folder."""
    job_file = Path(job_file)
    record = json.loads(job_file.read_text(encoding="utf-8"))
    results: dict[str, Any] = {"written": []}
    try:
        for name in record["modules"]:
            importlib.import_module(name)
        model = keras.saving.load_model(record["model"], compile=False)
        with open(job_file.with_name("steps.txt"), "a", encoding="utf-8") as steps:
            for number, job in enumerate(map(Job.from_json, record["jobs"])):
                report = functools.partial(print, number, sep="\t", file=steps, flush=True)
                results["written"].append(write(model, job, report).as_json())
    except (ExportError, OSError) as error:
        results["error"] = str(error)
    job_file.with_name("results.json").write_text(json.dumps(results), encoding="utf-8")


def write(model: keras.Model, job: Job, report: Callable[[str], Any] = lambda text: None) -> Result:
    """Write one file, or rank the layers that could stay in float32.

    Args:
        model: Model as loaded from the saved file.
        job: `Job` to run.
        report: Function that is called with the description of each step when it starts.

    Returns:
        The `Result` of the job.
    """
    format, path, quantization = FORMATS[job.format], Path(job.path), job.quantization
    steps = iter(steps_of(format, quantization, False))
    float_file = path if quantization is None else Path(job.plain or path.with_name("float_" + path.name))
    is_new = not float_file.exists()
    if is_new:
        report(next(steps))
    prepared = _prepared(model, job, job.batch_size)
    layout = "NHWC" if data_format_of(prepared) == "channels_last" else "NCHW"
    images, improving_seconds = None, 0.0
    if quantization == "int8":
        images = np.load(str(job.calibration))
        if layout == "NCHW":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        weights = float_file.with_name(f"{float_file.name}.weights.npz")
        levels = REDUCED if job.reduce_range else FULL
        if job.rank:
            ranked = _rank(_prepared(model, job, None), weights, images, levels, job.rank)
            return Result(layout, ranked=tuple(ranked))
        if is_new:
            report(next(steps))
            start = time.monotonic()
            any_batch_model = _prepared(model, job, None)
            improve(any_batch_model, images, levels)
            np.savez(weights, *any_batch_model.get_weights())
            prepared.set_weights(any_batch_model.get_weights())
            improving_seconds = time.monotonic() - start
    if is_new:
        report(next(steps))
        _write_float(with_blocks(prepared) if job.blocks else prepared, float_file, format, quantization)
    start = time.monotonic()
    if quantization is not None:
        report(next(steps) if is_new else "quantize")
        QUANTIZERS[format.name](float_file, path, quantization, images, list(job.float_blocks), job.reduce_range)
    if job.metadata:
        embed(path, dataclasses.replace(Metadata.from_json(job.metadata), layout=layout))
    return Result(layout, size_on_disk(format.files(float_file)), time.monotonic() - start, improving_seconds)


def _prepared(model, job, batch_size):
    return prepare(
        model,
        batch_size=batch_size,
        image_size=job.image_size,
        data_format=FORMATS[job.format].data_format,
        scaling=job.scaling,
        softmax=job.softmax,
    )


def _rank(model, weights, images, levels, names):
    """Return the layer names sorted by the accuracy gained if only that layer stays in float32, largest gain first."""
    with np.load(weights) as arrays:
        model.set_weights([arrays[name] for name in arrays.files])
    model.trainable = False
    return Simulation(model, limit_images(images)[:_RANKING_IMAGES], levels).ranked(names)


def _write_float(model, path, format, quantization):
    module, function = format.writer
    target = "litert_int8" if (format.name, quantization) == ("litert", "int8") else format.target
    # The writer module imports a framework, so import it only when it is needed.
    getattr(importlib.import_module(f"mobilenet_zoo.exporting.{module}"), function)(model, path, target)


if __name__ == "__main__":
    main(sys.argv[1])
