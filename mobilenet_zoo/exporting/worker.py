"""The process that writes files, under the backend that writes them best: `python -m mobilenet_zoo.exporting.worker`.

It takes a file of JSON that `exporter` has made, and writes its answer beside it.
"""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import keras
import numpy as np

import mobilenet_zoo  # noqa: F401 - registers the layers
from mobilenet_common.errors import ExportError
from mobilenet_runtime.embedding import embed
from mobilenet_runtime.metadata import Metadata
from mobilenet_zoo.exporting.formats import FORMATS
from mobilenet_zoo.exporting.integers import improve
from mobilenet_zoo.exporting.places import size_on_disk
from mobilenet_zoo.exporting.prepared import data_format_of, prepare, with_blocks
from mobilenet_zoo.exporting.quantizing import LEVELS, QUANTIZERS

_WRITERS = {  # imported when called: each brings a framework
    "litert": ("tensorflow_writer", "write_litert", "litert"),
    "saved_model": ("tensorflow_writer", "write_saved_model", "saved_model"),
    "onnx": ("torch_writer", "write_onnx", "onnx"),
    "openvino": ("torch_writer", "write_openvino", "onnx"),
    "torch": ("torch_writer", "write_program", "torch"),
}


def main(order):
    """Does what the file at `order` says, and writes `answer.json` beside it."""
    order = Path(order)
    record = json.loads(order.read_text(encoding="utf-8"))
    answer = {"written": []}
    try:
        for name in record["modules"]:
            importlib.import_module(name)
        model = keras.saving.load_model(record["model"], compile=False)
        answer["written"] = [write(model, job) for job in record["jobs"]]
    except (ExportError, OSError) as error:
        answer["error"] = str(error)
    order.with_name("answer.json").write_text(json.dumps(answer), encoding="utf-8")


def write(model, job):
    """Writes one file.

    Args:
        model: As it was saved.
        job: `path`, `format`, `batch_size`, `image_size`, `scaling`, `softmax`, `quantization`, `calibration` (a file
            of pictures as the new file takes them, or None), `float_blocks`, `blocks` (whether the output of every
            block is to be one), `metadata` (JSON, in which the layout is set, or None) and, if it is there
            already, `plain` (the file before it is quantised).

    Returns:
        `{"layout": of the pictures, "float_bytes": size of the file before it was quantised}`.
    """
    format, path, quantization = FORMATS[job["format"]], Path(job["path"]), job["quantization"]
    options = {
        "image_size": job["image_size"],
        "data_format": format.data_format,
        "scaling": job["scaling"],
        "softmax": job["softmax"],
    }
    prepared = prepare(model, batch_size=job["batch_size"], **options)
    layout = "NHWC" if data_format_of(prepared) == "channels_last" else "NCHW"
    pictures = None
    if quantization == "int8":
        pictures = np.load(job["calibration"])
        if layout == "NCHW":
            pictures = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
        if format.name in LEVELS:
            improved = prepare(model, batch_size=None, **options)
            improve(improved, pictures, LEVELS[format.name])
            prepared.set_weights(improved.get_weights())
    if job["blocks"]:
        prepared = with_blocks(prepared)
    module, function, target = _WRITERS[format.name]
    write_float = getattr(importlib.import_module(f"mobilenet_zoo.exporting.{module}"), function)
    if (format.name, quantization) == ("litert", "int8"):
        target = "litert of integers"
    plain = path if quantization is None else Path(job.get("plain") or path.with_name("float_" + path.name))
    if not plain.exists():
        write_float(prepared, plain, target)
    if quantization is not None:
        QUANTIZERS[format.name](plain, path, quantization, pictures, job["float_blocks"])
    if job["metadata"]:
        embed(path, dataclasses.replace(Metadata.from_json(job["metadata"]), layout=layout))
    return {"layout": layout, "float_bytes": size_on_disk(format.files(plain))}


if __name__ == "__main__":
    main(sys.argv[1])
