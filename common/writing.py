"""Files that take their place when they are whole: a process that fails or dies leaves what was there."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from mobilenet_common.types import PathLike

_PREFIX = ".writing-"


@contextlib.contextmanager
def folder_beside(path):
    """Yield a temporary folder on the disk of `path`, from which a file can be moved to `path` in one step.

    Raises:
        OSError: It can't be made.
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
    """Yield a path to write to; when the block ends that file replaces the one at `path`, unless the block raises.

    Args:
        path: Its folder is made where it is missing. The path that is given has the same name.
    """
    path = Path(path)
    with folder_beside(path) as folder:
        part = folder / path.name
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())  # Else a system that crashes may keep the name and lose the content.
        os.replace(part, path)


def write_text(path: PathLike, text: str) -> None:
    """Write `text` in UTF-8 to `path`, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def remove_unfinished(folder: PathLike) -> None:
    """Remove what processes that were killed left in `folder`; no other process may be writing there."""
    for left_over in Path(folder).glob(f"{_PREFIX}*"):
        shutil.rmtree(left_over, ignore_errors=True)


def replace_all(sources, targets):
    """Move files or folders to `targets`, replacing what is there; if one can't be moved, all are as before.

    The last is moved first. `sources` lie in one folder from `folder_beside`.
    """
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
    """Keep what is at `target` as `old` too, or instead if it is a folder; return None if there is nothing."""
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
