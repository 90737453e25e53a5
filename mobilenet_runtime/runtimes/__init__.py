"""Exported models in their own runtimes, each of which is imported when a file of its kind is opened."""

import importlib
from pathlib import Path

from mobilenet_common.errors import ArgumentError, integer
from mobilenet_common.types import PathLike
from mobilenet_runtime.runtimes.base import Exported

# Which class runs the files with an ending; a folder is a SavedModel.
_RUNTIMES = {
    ".tflite": ("litert", "LiteRtModel"),
    ".onnx": ("onnx", "OnnxModel"),
    ".xml": ("openvino", "OpenvinoModel"),
    ".pt2": ("torch_export", "TorchProgram"),
    "": ("saved_model", "SavedModel"),
}
ENDINGS = tuple(filter(None, _RUNTIMES))


def is_exported(path: PathLike) -> bool:
    """Return whether a path is one that `load` takes, by its name and by what is there."""
    path = Path(path)
    return (path / "saved_model.pb").is_file() if path.is_dir() else path.suffix in _RUNTIMES and path.is_file()


def load(path: PathLike, threads: int | None = None) -> Exported:
    """Return an exported model, ready to run.

    Args:
        path: A `.tflite`, `.onnx`, `.xml` or `.pt2` file, or the folder of a SavedModel.
        threads: How many the runtime may use; None for its own choice.

    Returns:
        An `Exported`: call it with a batch of images.

    Raises:
        ValueError: There is no such file, or its kind is unknown, or `threads` is less than 1.
        RuntimeFailure: The runtime refuses the file, or it takes something else than images.
        RuntimeMissing: The library that runs it is not installed.
    """
    if threads is not None:
        threads = integer("threads", threads, 1)
    module, name = _RUNTIMES[ending_of(path)]
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)(path, threads)


def ending_of(path):
    """Return the ending of an exported file, or `""` for the folder of a SavedModel.

    Raises:
        ValueError: There is no such file, or its kind is unknown.
    """
    path = Path(path)
    if not path.exists():
        raise ArgumentError(f"{path} does not exist.")
    if path.is_dir() and not is_exported(path):
        raise ArgumentError(f"{path} is a folder without a saved_model.pb: name a SavedModel, or a file.")
    ending = "" if path.is_dir() else path.suffix
    if ending not in _RUNTIMES:
        known = ", ".join(ENDINGS)
        raise ArgumentError(f"{path} has an unknown ending {ending!r}. Known: {known}, and the folder of a SavedModel.")
    return ending
