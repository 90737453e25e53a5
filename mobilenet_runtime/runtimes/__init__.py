"""Run exported models in their own runtimes. A runtime is imported only when a file of its format is loaded."""

import importlib
from pathlib import Path

from mobilenet_common.errors import ArgumentError, integer
from mobilenet_common.types import PathLike
from mobilenet_runtime.file_formats import BY_ENDING, ENDINGS, SAVED_MODEL_FILE, FileFormat
from mobilenet_runtime.runtimes.base import Exported


def is_exported(path: PathLike) -> bool:
    """Return whether `path` is an existing exported model, judged by its extension or the contents of its folder."""
    path = Path(path)
    return (path / SAVED_MODEL_FILE).is_file() if path.is_dir() else path.suffix in BY_ENDING and path.is_file()


def load(path: PathLike, threads: int | None = None) -> Exported:
    """Load an exported model in the runtime of its format.

    Args:
        path: Path of a `.tflite`, `.onnx`, `.xml` or `.pt2` file, or the folder of a SavedModel.
        threads: Number of threads that the runtime may use, at least 1; None for the runtime's default.

    Returns:
        An `Exported`. Call it with a batch of images.

    Raises:
        ValueError: If the file doesn't exist, its format is unknown, or `threads` is less than 1.
        RuntimeFailure: If the runtime can't load the file, or if the model's input is not a batch of images.
        RuntimeMissing: If the library that runs the file is not installed.
    """
    if threads is not None:
        threads = integer("threads", threads, 1)
    module, name = format_of(path).runtime
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)(path, threads)


def format_of(path: PathLike) -> FileFormat:
    """Return the `FileFormat` of an exported file, or of the folder of a SavedModel.

    Raises:
        ValueError: If the file doesn't exist or its format is unknown.
    """
    path = Path(path)
    if not path.exists():
        raise ArgumentError(f"{path} does not exist.")
    if path.is_dir() and not is_exported(path):
        raise ArgumentError(f"{path} is a folder without a {SAVED_MODEL_FILE}: pass a SavedModel or a file.")
    ending = "" if path.is_dir() else path.suffix
    if ending not in BY_ENDING:
        known = ", ".join(ENDINGS)
        raise ArgumentError(f"{path} has an unknown extension {ending!r}. Known: {known}, and SavedModel folders.")
    return BY_ENDING[ending]
