"""The target path of an export: checks before writing, and a temporary folder to write in."""

import contextlib
from pathlib import Path
from typing import Any

from mobilenet_common.errors import ArgumentError, ExportError
from mobilenet_common.writing import folder_beside
from mobilenet_runtime.file_formats import SAVED_MODEL_FILE


def check_destination(path: Path, format: Any) -> None:
    """Raise a `ValueError` if an export must not replace the existing file or folder at `path`."""
    if format.ending and path.is_dir():
        raise ArgumentError(f"path={str(path)!r} is a folder: pass the path of a file that ends with {format.ending}.")
    if not format.ending and path.exists():
        if not path.is_dir():
            raise ArgumentError(f"path={str(path)!r} is a file, but a SavedModel is a folder: pass another path.")
        if any(path.iterdir()) and not (path / SAVED_MODEL_FILE).exists():
            raise ArgumentError(f"path={str(path)!r} is a folder that contains other files: pass a new folder.")


@contextlib.contextmanager
def folder_next_to(path):
    """Yield a temporary folder on the same file system as `path`, so that a file can be moved to `path` atomically.

    Raises:
        ExportError: The folder can't be created.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(folder_beside(path))
        except OSError as error:
            reason = error.strerror
            if isinstance(error, (FileExistsError, NotADirectoryError)):
                reason = "a file exists where its parent folder should be"
            raise ExportError(f"{path} can't be written: {reason}.") from error
        yield folder


def size_on_disk(paths):
    """Return the total size in bytes of files and folders."""
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())
