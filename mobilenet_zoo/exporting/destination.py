"""Files and folders that take their place when they are whole."""

import contextlib
from pathlib import Path
from typing import Any

from mobilenet_common.errors import ArgumentError, ExportError
from mobilenet_common.writing import folder_beside
from mobilenet_runtime.file_formats import SAVED_MODEL_FILE


def check_destination(path: Path, format: Any) -> None:
    """Raise a `ValueError` where something lies at `path` that an export must not replace."""
    if format.ending and path.is_dir():
        raise ArgumentError(f"path={str(path)!r} is a folder: name a file in it that ends with {format.ending}.")
    if not format.ending and path.exists():
        if not path.is_dir():
            raise ArgumentError(f"path={str(path)!r} is a file, and a SavedModel is a folder: name another.")
        if any(path.iterdir()) and not (path / SAVED_MODEL_FILE).exists():
            raise ArgumentError(f"path={str(path)!r} is a folder with something else in it: name a new one.")


@contextlib.contextmanager
def beside(path):
    """Yield a temporary folder on the disk of `path`, from which a file can be moved there in one step.

    Raises:
        ExportError: Nothing can be written there.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(folder_beside(path))
        except OSError as error:
            reason = error.strerror
            if isinstance(error, (FileExistsError, NotADirectoryError)):
                reason = "a file is where its folder should be"
            raise ExportError(f"{path} can't be written: {reason}.") from error
        yield folder


def size_on_disk(paths):
    """Return bytes of files and of all that is in folders."""
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())
