"""Many pictures from disk through a model, made ready by threads while it works on those before."""

import collections
import glob
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mobilenet_runtime.pictures import PictureError, as_numpy, pillow

_BATCHES_AHEAD = 2


def find_pictures(places):
    """The paths of the pictures in `places`: files as they are, folders with all below them, and patterns, in order.

    In folders only files with the ending of a picture count. What isn't there is listed too, to fail when it is read.
    """
    endings = None
    found = {}
    for place in map(str, places):
        if os.path.isdir(place):
            if endings is None:
                image = pillow("Image")
                image.init()
                endings = {ending for ending, kind in image.EXTENSION.items() if kind in image.OPEN}
            inside = sorted(path for path in Path(place).rglob("*") if path.suffix.lower() in endings)
            found.update(dict.fromkeys(map(str, filter(Path.is_file, inside))))
        elif not os.path.exists(place) and glob.has_magic(place):
            found.update(dict.fromkeys(sorted(filter(os.path.isfile, glob.glob(place, recursive=True)))))
        else:
            found[place] = None
    return list(found)


def run(predict, transform, paths, batch_size):
    """Yields `(paths, outputs, failures)` batch by batch.

    Args:
        predict: Gives the answers to a batch of pictures, which always has one size.
        transform: A `Preprocessing`.
        paths: Of pictures.
        batch_size: How many pictures `predict` takes at once, at least 1.

    Yields:
        The paths of a batch that could be read, the model's answers to them (None if there are none), and the
        `PictureError`s of those that could not be read.
    """
    batch_size = min(batch_size, len(paths))
    for good, pictures, failures in batches(paths, transform, batch_size):
        outputs = None
        if good:
            # Every batch has one shape, so that nothing is compiled twice.
            missing = np.zeros((batch_size - len(good), *pictures.shape[1:]), pictures.dtype)
            outputs = as_numpy(predict(np.concatenate([pictures, missing])))[: len(good)]
        yield good, outputs, failures


def batches(paths, transform, batch_size, workers=None):
    """Yields `(paths, pictures, failures)` batch by batch.

    Args:
        paths: Of pictures.
        transform: A `Preprocessing`.
        batch_size: How many pictures make a batch, at least 1; the last may be smaller.
        workers: Threads that read; None for one a core.

    Yields:
        The paths of a batch that could be read, their array, and the `PictureError`s of those that could not.
    """
    workers = workers or os.cpu_count() or 1
    rest = iter(paths)
    with ThreadPoolExecutor(workers, thread_name_prefix="pictures") as pool:
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
                except PictureError as error:
                    failures.append(error)
            submit()
            yield good, np.stack(arrays) if arrays else None, failures
