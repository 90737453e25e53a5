"""Exported models in their own runtimes, each of which is imported when a file of its kind is opened."""

import importlib
from pathlib import Path

from mobilenet_common.errors import ArgumentError, integer
from mobilenet_common.types import PathLike
from mobilenet_runtime.file_formats import BY_ENDING, ENDINGS, SAVED_MODEL_FILE, FileFormat
from mobilenet_runtime.runtimes.base import Exported


def is_exported(path: PathLike) -> bool:
    """Return whether a path is one that `load` takes, by its name and by what is there."""
    path = Path(path)
    return (path / SAVED_MODEL_FILE).is_file() if path.is_dir() else path.suffix in BY_ENDING and path.is_file()


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
    module, name = format_of(path).runtime
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)(path, threads)


def format_of(path: PathLike) -> FileFormat:
    """Return the `FileFormat` of an exported file, or of the folder of a SavedModel.

    Raises:
        ValueError: There is no such file, or its kind is unknown.
    """
    path = Path(path)
    if not path.exists():
        raise ArgumentError(f"{path} does not exist.")
    if path.is_dir() and not is_exported(path):
        raise ArgumentError(f"{path} is a folder without a {SAVED_MODEL_FILE}: name a SavedModel, or a file.")
    ending = "" if path.is_dir() else path.suffix
    if ending not in BY_ENDING:
        known = ", ".join(ENDINGS)
        raise ArgumentError(f"{path} has an unknown ending {ending!r}. Known: {known}, and the folder of a SavedModel.")
    return BY_ENDING[ending]
