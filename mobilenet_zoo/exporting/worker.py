"""The process that writes files, under the backend that writes them best: `python -m mobilenet_zoo.exporting.worker`.

It takes a file of JSON that `exporter` has made, and writes its answer beside it.
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
from mobilenet_zoo.exporting.integers import improve, seen
from mobilenet_zoo.exporting.job import Job, Result
from mobilenet_zoo.exporting.prepared import data_format_of, prepare, with_blocks
from mobilenet_zoo.exporting.progress import steps_of
from mobilenet_zoo.exporting.quantizing import FULL, QUANTIZERS, REDUCED
from mobilenet_zoo.exporting.simulation import Simulation

_RANKING = 16  # images that layers are ranked with


def main(order):
    """Do what the file at `order` says, and write `answer.json` beside it."""
    order = Path(order)
    record = json.loads(order.read_text(encoding="utf-8"))
    answer: dict[str, Any] = {"written": []}
    try:
        for name in record["modules"]:
            importlib.import_module(name)
        model = keras.saving.load_model(record["model"], compile=False)
        with open(order.with_name("steps.txt"), "a", encoding="utf-8") as steps:
            for number, job in enumerate(map(Job.from_json, record["jobs"])):
                report = functools.partial(print, number, sep="\t", file=steps, flush=True)
                answer["written"].append(write(model, job, report).as_json())
    except (ExportError, OSError) as error:
        answer["error"] = str(error)
    order.with_name("answer.json").write_text(json.dumps(answer), encoding="utf-8")


def write(model: keras.Model, job: Job, report: Callable[[str], Any] = lambda text: None) -> Result:
    """Write one file, or rank the layers that could stay in float32.

    Args:
        model: As it was saved.
        job: A `Job`.
        report: Called with each step that begins.
    """
    format, path, quantization = FORMATS[job.format], Path(job.path), job.quantization
    steps = iter(steps_of(format, quantization, False))
    plain = path if quantization is None else Path(job.plain or path.with_name("float_" + path.name))
    is_new = not plain.exists()
    if is_new:
        report(next(steps))
    prepared = _prepared(model, job, job.batch_size)
    layout = "NHWC" if data_format_of(prepared) == "channels_last" else "NCHW"
    images, improving = None, 0.0
    if quantization == "int8":
        images = np.load(str(job.calibration))
        if layout == "NCHW":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        weights = plain.with_name(f"{plain.name}.weights.npz")
        levels = REDUCED if job.reduce_range else FULL
        if job.rank:
            ranked = _ranked(_prepared(model, job, None), weights, images, levels, job.rank)
            return Result(layout, ranked=tuple(ranked))
        if is_new:
            report(next(steps))
            start = time.monotonic()
            free = _prepared(model, job, None)
            improve(free, images, levels)
            np.savez(weights, *free.get_weights())
            prepared.set_weights(free.get_weights())
            improving = time.monotonic() - start
    if is_new:
        report(next(steps))
        _write_float(with_blocks(prepared) if job.blocks else prepared, plain, format, quantization)
    start = time.monotonic()
    if quantization is not None:
        report(next(steps) if is_new else "quantize")
        QUANTIZERS[format.name](plain, path, quantization, images, list(job.float_blocks), job.reduce_range)
    if job.metadata:
        embed(path, dataclasses.replace(Metadata.from_json(job.metadata), layout=layout))
    return Result(layout, size_on_disk(format.files(plain)), time.monotonic() - start, improving)


def _prepared(model, job, batch_size):
    return prepare(
        model,
        batch_size=batch_size,
        image_size=job.image_size,
        data_format=FORMATS[job.format].data_format,
        scaling=job.scaling,
        softmax=job.softmax,
    )


def _ranked(model, weights, images, levels, names):
    """Return `names` of layers in the order of what is gained if one of them stays in float32, the most first."""
    with np.load(weights) as arrays:
        model.set_weights([arrays[name] for name in arrays.files])
    model.trainable = False
    return Simulation(model, seen(images)[:_RANKING], levels).ranked(names)


def _write_float(model, path, format, quantization):
    module, function = format.writer
    target = "litert of integers" if (format.name, quantization) == ("litert", "int8") else format.target
    # The module is imported here, because it brings a framework.
    getattr(importlib.import_module(f"mobilenet_zoo.exporting.{module}"), function)(model, path, target)


if __name__ == "__main__":
    main(sys.argv[1])
