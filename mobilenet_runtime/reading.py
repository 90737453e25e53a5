"""Many images from disk through a model, made ready by threads while it works on those before."""

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


# What systems and tools leave in folders, in lower case; besides these, every name that begins with a dot.
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
    """Return whether a search of a folder skips a file or folder of this name: hidden files and leftovers."""
    return name.startswith(".") or name.lower() in _IGNORED


def find_images(places):
    """Return the paths of the images in `places`, in order: files, folders with everything below, patterns.

    In folders only files with the ending of an image count, and nothing below them that `is_ignored`. What is named
    itself is taken as it is. What isn't there is listed too, to fail when it is read. Links are followed, except links
    to a folder that they lie in.

    Raises:
        ValueError: A folder can't be read.
    """
    found = {}
    for place in map(str, places):
        if os.path.isdir(place):
            found.update(dict.fromkeys(_below(place)))
        elif not os.path.exists(place) and glob.has_magic(place):
            matches = sorted(filter(os.path.isfile, glob.glob(place, recursive=True)))
            found.update(dict.fromkeys(path for path in matches if not _is_left_out(path, place)))
        else:
            found[place] = None
    return list(found)


def _below(folder):
    """Return the paths of the images in a folder and below it, in order."""
    image = pillow("Image")
    image.init()
    endings = tuple(ending for ending, kind in list(image.EXTENSION.items()) if kind in image.OPEN)
    found, real_paths = [], {folder: (os.path.realpath(folder),)}  # of each folder: where it and its links' targets are
    for place, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        own = real_paths.pop(place)
        inside = {}
        for name in folders:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                inside[name] = (*own[:-1], os.path.join(own[-1], name))
            elif not _contains(target := os.path.realpath(path), own):
                inside[name] = (*own, target)
        folders[:] = [name for name in folders if name in inside and not is_ignored(name)]
        real_paths |= {os.path.join(place, name): inside[name] for name in folders}
        names = [name for name in names if name.lower().endswith(endings) and not is_ignored(name)]
        found += filter(Path.is_file, (Path(place, name) for name in names))
    return map(str, sorted(found))


def _contains(folder, places):
    """Return whether `places` has a folder or one inside it, so that following a link there would not end."""
    return any(place == folder or place.startswith(os.path.join(folder, "")) for place in places)


def _unreadable(error):
    raise ArgumentError(
        f"{printable(error.filename)} can't be read: {error.strerror}. Allow it, or name the folders beside it."
    ) from error


def _is_left_out(path, pattern):
    """Return whether a match of a pattern has a part that `is_ignored` and that the pattern doesn't name itself."""
    named = set(Path(pattern).parts)
    return any(is_ignored(part) for part in Path(path).parts if part not in named)


def skipped(failures, total, kind):
    """Return the sentence that names the damaged ones of `total` images of a kind, such as "training"."""
    more = f" And {len(failures) - _SHOWN} more." if len(failures) > _SHOWN else ""
    first = " ".join(map(str, failures[:_SHOWN]))
    are = "is damaged and was" if len(failures) == 1 else "are damaged and were"
    return f"{len(failures)} of {total} {kind} images {are} skipped: {first}{more}"


def run(predict, transform, paths, batch_size):
    """Yield `(paths, outputs, failures)` batch by batch.

    Args:
        predict: Gives the outputs to a batch of images, which always has one size.
        transform: A `Preprocessing`.
        paths: Of images.
        batch_size: How many images `predict` takes at once, at least 1.

    Yields:
        The paths of a batch that could be read, the model's outputs to them (None if there are none), and the
        `ImageError`s of those that could not be read.
    """
    batch_size = min(batch_size, len(paths))
    for good, images, failures in batches(paths, transform, batch_size):
        outputs = None
        if images is not None:
            # Every batch has one shape, so that nothing is compiled twice.
            missing = np.zeros((batch_size - len(good), *images.shape[1:]), images.dtype)
            outputs = as_numpy(predict(np.concatenate([images, missing])))[: len(good)]
        yield good, outputs, failures


def batches(paths, transform, batch_size, workers=None):
    """Yield `(paths, images, failures)` batch by batch.

    Args:
        paths: Of images.
        transform: A `Preprocessing`.
        batch_size: How many images make a batch, at least 1; the last may be smaller.
        workers: Threads that read; None for one a core.

    Yields:
        The paths of a batch that could be read, their array, and the `ImageError`s of those that could not.
    """
    workers = workers or os.cpu_count() or 1
    rest = iter(paths)
    with ThreadPoolExecutor(workers, thread_name_prefix="images") as pool:
        ahead = collections.deque()

        def submit():
            batch = list(itertools.islice(rest, batch_size))
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
