"""Files and folders that take their place when they are whole."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from mobilenet_common.errors import ExportError


def check_place(path, format):
    """Raises a `ValueError` where something lies at `path` that an export must not replace."""
    if format.ending and path.is_dir():
        raise ValueError(f"path={str(path)!r} is a folder: name a file in it that ends with {format.ending}.")
    if not format.ending and path.exists():
        if not path.is_dir():
            raise ValueError(f"path={str(path)!r} is a file, and a SavedModel is a folder: name another.")
        if any(path.iterdir()) and not (path / "saved_model.pb").exists():
            raise ValueError(f"path={str(path)!r} is a folder with something else in it: name a new one.")


@contextlib.contextmanager
def beside(path):
    """A temporary folder on the disk of `path`, so that what is whole takes its place at once.

    Raises:
        ExportError: Nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=".export-", dir=path.parent)
    except OSError as error:
        raise ExportError(f"{path} can't be written: {error.strerror}.") from error
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(sources, targets):
    """Moves files or folders to where others may be, which are then gone."""
    for source, target in reversed(list(zip(sources, targets, strict=True))):
        if target.is_dir():
            old = source.with_name("old_" + source.name)
            os.rename(target, old)
        os.replace(source, target)


def size_on_disk(paths):
    """Bytes of files and of all that is in folders."""
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())
