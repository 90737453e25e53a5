"""Atomic writing of files: if a process fails or is killed, the previous file stays in place."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from mobilenet_common.types import PathLike

_PREFIX = ".writing-"


@contextlib.contextmanager
def folder_beside(path):
    """Yield a temporary folder on the same disk as `path`, so that a file can be moved from it to `path` atomically.

    Raises:
        OSError: If the folder can't be created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=_PREFIX, dir=path.parent)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def whole_file(path):
    """Yield a temporary path to write to, and move the file to `path` when the block ends without an exception.

    Args:
        path: Path of the final file. Missing parent folders are created. The temporary path has the same file name.
    """
    path = Path(path)
    with folder_beside(path) as folder:
        part = folder / path.name
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())  # Without it, a system crash may leave an empty file under the new name.
        os.replace(part, path)


def write_text(path: PathLike, text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def remove_unfinished(folder: PathLike) -> None:
    """Remove the temporary files that killed processes left in `folder`.

    No other process may be writing to the folder at the same time.
    """
    for left_over in Path(folder).glob(f"{_PREFIX}*"):
        shutil.rmtree(left_over, ignore_errors=True)


def replace_all(sources, targets):
    """Move files or folders to `targets`, replacing existing ones; if one move fails, undo all of them.

    They are moved in reverse order.

    Args:
        sources: Paths of the files or folders, all in one folder from `folder_beside`.
        targets: Path to move each source to.

    Raises:
        OSError: If a file or folder can't be moved.
    """
    moved = []
    try:
        for source, target in reversed(list(zip(sources, targets, strict=True))):
            moved.append((target, _back_up(target, source.with_name("old_" + source.name))))
            os.replace(source, target)
    except OSError:
        for target, backup in reversed(moved):
            if backup is not None:
                os.replace(backup, target)
            else:
                target.unlink(missing_ok=True)
        raise


def _back_up(target, backup):
    """Back up the file or folder at `target` as `backup`, and return `backup`, or None if `target` doesn't exist.

    A folder is moved to `backup`; a file stays at `target` as well.
    """
    if target.is_dir():
        os.rename(target, backup)
    elif target.exists():
        try:
            os.link(target, backup)
        except OSError:  # The file system doesn't support hard links.
            shutil.copy2(target, backup)
    else:
        return None
    return backup
