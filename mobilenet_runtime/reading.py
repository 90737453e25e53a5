"""Find image files, preprocess them in threads, and run a model on them batch by batch."""

import collections
import glob
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mobilenet_common.errors import ArgumentError, printable
from mobilenet_runtime.images import ImageError, as_numpy, pillow

_BATCHES_AHEAD = 2
_SHOWN = 8


# Names that operating systems and tools create in folders, in lower case. Names that begin with a dot are ignored too.
_IGNORED = {
    "#recycle",
    "$recycle.bin",
    "@eadir",
    "@recycle",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "lost+found",
    "system volume information",
    "thumbs.db",
}


def is_ignored(name: str) -> bool:
    """Return whether a folder search skips files and folders of this name: hidden ones, and those of system tools."""
    return name.startswith(".") or name.lower() in _IGNORED


def find_images(patterns):
    """Return the paths of images in files, folders and glob patterns, without duplicates.

    Folders are searched recursively for files with the extension of an image format. Names for which `is_ignored` is
    true are skipped. Symbolic links are followed, unless they point to a folder that contains them. Paths of files
    are returned unchanged, even if they don't exist, so that reading them reports the error.

    Args:
        patterns: Paths of files or folders, or glob patterns.

    Returns:
        A list of paths as strings, in the order of `patterns` and sorted within each.

    Raises:
        ValueError: If a folder can't be read.
    """
    paths = {}
    for pattern in map(str, patterns):
        if os.path.isdir(pattern):
            paths.update(dict.fromkeys(_below(pattern)))
        elif not os.path.exists(pattern) and glob.has_magic(pattern):
            matches = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
            paths.update(dict.fromkeys(path for path in matches if not _is_left_out(path, pattern)))
        else:
            paths[pattern] = None
    return list(paths)


def _below(folder):
    """Return the sorted paths of the images in a folder and its sub-folders."""
    image = pillow("Image")
    image.init()
    endings = tuple(ending for ending, kind in list(image.EXTENSION.items()) if kind in image.OPEN)
    images = []
    # For each folder to visit: the real paths of the folders whose links led to it, then its own real path.
    real_paths = {folder: (os.path.realpath(folder),)}
    for parent, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        parent_paths = real_paths.pop(parent)
        child_paths = {}
        for name in folders:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                child_paths[name] = (*parent_paths[:-1], os.path.join(parent_paths[-1], name))
            elif not _contains(target := os.path.realpath(path), parent_paths):
                child_paths[name] = (*parent_paths, target)
        folders[:] = [name for name in folders if name in child_paths and not is_ignored(name)]
        real_paths |= {os.path.join(parent, name): child_paths[name] for name in folders}
        names = [name for name in names if name.lower().endswith(endings) and not is_ignored(name)]
        images += filter(Path.is_file, (Path(parent, name) for name in names))
    return map(str, sorted(images))


def _contains(folder, paths):
    """Return whether one of `paths` is `folder` or lies in it, so that following a link to `folder` would not end."""
    return any(path == folder or path.startswith(os.path.join(folder, "")) for path in paths)


def _unreadable(error):
    raise ArgumentError(
        f"{printable(error.filename)} can't be read: {error.strerror}. Grant access to it, or pass only the other "
        "folders."
    ) from error


def _is_left_out(path, pattern):
    """Return whether a match of a pattern has an ignored name in its path that the pattern doesn't spell out."""
    named = set(Path(pattern).parts)
    return any(is_ignored(part) for part in Path(path).parts if part not in named)


def skipped(failures, total, kind):
    """Return a message that lists the damaged images among `total` images of a kind, such as "training"."""
    more = f" And {len(failures) - _SHOWN} more." if len(failures) > _SHOWN else ""
    first = " ".join(map(str, failures[:_SHOWN]))
    are = "is damaged and was" if len(failures) == 1 else "are damaged and were"
    return f"{len(failures)} of {total} {kind} images {are} skipped: {first}{more}"


def run(predict, transform, paths, batch_size):
    """Run a model on images and yield `(paths, outputs, failures)` for each batch.

    Args:
        predict: Function that returns the outputs for a batch of images. All batches have the same size.
        transform: A `Preprocessing`, or any function that returns the preprocessed image of a path.
        paths: Sequence of image paths.
        batch_size: Number of images per call of `predict`, at least 1.

    Yields:
        The paths that could be read, the model's outputs for them (None if no image could be read), and the
        `ImageError`s of the other images of the batch.
    """
    batch_size = min(batch_size, len(paths))
    for good, images, failures in batches(paths, transform, batch_size):
        outputs = None
        if images is not None:
            # Pad the batch: a constant shape avoids recompilation.
            padding = np.zeros((batch_size - len(good), *images.shape[1:]), images.dtype)
            outputs = as_numpy(predict(np.concatenate([images, padding])))[: len(good)]
        yield good, outputs, failures


def batches(paths, transform, batch_size, workers=None):
    """Read images in threads and yield `(paths, images, failures)` for each batch.

    Args:
        paths: Iterable of image paths.
        transform: A `Preprocessing`, or any function that returns the preprocessed image of a path.
        batch_size: Number of paths per batch, at least 1. The last batch may be smaller.
        workers: Number of threads that read images; None for one per core.

    Yields:
        The paths that could be read, the array of their images (None if no image could be read), and the
        `ImageError`s of the other images of the batch.
    """
    workers = workers or os.cpu_count() or 1
    remaining = iter(paths)
    with ThreadPoolExecutor(workers, thread_name_prefix="images") as pool:
        ahead = collections.deque()

        def submit():
            batch = list(itertools.islice(remaining, batch_size))
            if batch:
                ahead.append([(path, pool.submit(transform, path)) for path in batch])

        for _ in range(_BATCHES_AHEAD):
            submit()
        while ahead:
            good, arrays, failures = [], [], []
            for path, future in ahead.popleft():
                try:
                    arrays.append(future.result())
                    good.append(path)
                except ImageError as error:
                    failures.append(error)
            submit()
            yield good, np.stack(arrays) if arrays else None, failures
