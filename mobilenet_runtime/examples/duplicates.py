"""Images that the training set and the validation set have in common, by their content."""

import hashlib
import os

import numpy as np

from mobilenet_common.errors import printable
from mobilenet_runtime.examples.examples import Joined, Picked

_MOST = 2_000  # validation images that are compared, evenly spread: of a large set a sample tells as much
_BLOCK = 1024  # bytes from the middle of a file, which tell most files of one size apart


def shared_images(train, validation):
    """Return a sentence about the images that both `Examples` hold, or None where none are found.

    Files are compared by size first, then by a block of their content, and only those that are still equal are read
    whole. Arrays in memory are compared too; images of datasets that are decoded when asked for are not.
    """
    if not (_is_held(train.images) and _is_held(validation.images)):
        return None
    chosen = np.unique(np.linspace(0, len(validation) - 1, min(_MOST, len(validation))).astype(int)).tolist()
    mine, theirs = {i: validation.images[i] for i in chosen}, dict(enumerate(train.images))
    keys = [dict.fromkeys(mine, ()), dict.fromkeys(theirs, ())]
    for step in (_kind, _block, _whole):
        for own, images in zip(keys, (mine, theirs), strict=True):
            for i in own:
                own[i] = (own[i], step(images[i]))
        in_both = {key for key in keys[0].values() if key[1] is not None} & set(keys[1].values())
        keys = [{i: key for i, key in own.items() if key in in_both} for own in keys]
    found, sources = keys[0], {key: i for i, key in reversed(keys[1].items())}
    if not found:
        return None
    first = next(iter(found))
    of = f"{len(chosen)}" if len(chosen) == len(validation) else f"{len(chosen)} compared"
    return (
        f"{len(found)} of {of} validation images are in the training set too, for example "
        f"{printable(validation.name_of(first))}, which is {printable(train.name_of(sources[found[first]]))}, "
        "so validation accuracy will look too high."
    )


def _is_held(images):
    """Return whether images are paths or arrays at hand, so that looking at one decodes nothing."""
    if isinstance(images, Picked):
        return _is_held(images.items)
    if isinstance(images, Joined):
        return all(map(_is_held, images.sequences))
    return isinstance(images, (list, tuple, np.ndarray))


def _kind(image):
    """Return size of a file, or shape and type of an array; None for anything else."""
    if isinstance(image, np.ndarray):
        return (image.shape, str(image.dtype)) if image.size and image.dtype != object else None
    if isinstance(image, (str, os.PathLike)):
        try:
            return os.stat(image).st_size or None
        except OSError:  # reported when it is read
            return None
    return None


def _block(image):
    if isinstance(image, np.ndarray):
        middle = image.size // 2
        return image.flat[middle : middle + _BLOCK].tobytes()
    return _read(image, _middle)


def _whole(image):
    if isinstance(image, np.ndarray):
        return hashlib.blake2b(image.tobytes()).digest()
    return _read(image, lambda file: hashlib.file_digest(file, "blake2b").digest())


def _read(path, read):
    try:
        with open(path, "rb") as file:
            return read(file)
    except OSError:
        return None


def _middle(file):
    file.seek(os.fstat(file.fileno()).st_size // 2)
    return file.read(_BLOCK)
