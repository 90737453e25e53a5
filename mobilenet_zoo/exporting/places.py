"""Files and folders that take their place when they are whole."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from mobilenet_common.errors import ArgumentError, ExportError


def check_place(path, format):
    """Raises a `ValueError` where something lies at `path` that an export must not replace."""
    if format.ending and path.is_dir():
        raise ArgumentError(f"path={str(path)!r} is a folder: name a file in it that ends with {format.ending}.")
    if not format.ending and path.exists():
        if not path.is_dir():
            raise ArgumentError(f"path={str(path)!r} is a file, and a SavedModel is a folder: name another.")
        if any(path.iterdir()) and not (path / "saved_model.pb").exists():
            raise ArgumentError(f"path={str(path)!r} is a folder with something else in it: name a new one.")


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
        reason = error.strerror
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            reason = "a file is where its folder should be"
        raise ExportError(f"{path} can't be written: {reason}.") from error
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(sources, targets):
    """Moves files or folders to where others may be, which are then gone; if one can't be moved, all are as before."""
    moved = []
    try:
        for source, target in reversed(list(zip(sources, targets, strict=True))):
            moved.append((target, _kept(target, source.with_name("old_" + source.name))))
            os.replace(source, target)
    except OSError:
        for target, old in reversed(moved):
            if old is not None:
                os.replace(old, target)
            else:
                target.unlink(missing_ok=True)
        raise


def _kept(target, old):
    """Keeps what is at `target` as `old` too, or instead if it is a folder; None if there is nothing."""
    if target.is_dir():
        os.rename(target, old)
    elif target.exists():
        try:
            os.link(target, old)
        except OSError:  # a file system without links
            shutil.copy2(target, old)
    else:
        return None
    return old


def size_on_disk(paths):
    """Bytes of files and of all that is in folders."""
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())
