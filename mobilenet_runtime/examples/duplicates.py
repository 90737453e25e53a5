"""Find images that are in both the training set and the validation set, by their content."""

import hashlib
import os

import numpy as np

from mobilenet_common.errors import printable
from mobilenet_runtime.examples.examples import Joined, Picked

_MOST = 2_000  # maximum number of validation images to compare; a sample is enough for a large set
_BLOCK = 1024  # bytes from the middle of a file, which differ in most files of the same size


def shared_images(train, validation):
    """Return a message about images that are in both sets, or None if there are none.

    Files are compared by size first, then by a block of their content, and only files that are still equal are read
    completely. Arrays in memory are compared too. Images of datasets that decode them on access are not compared.

    Args:
        train: `Examples` of the training set.
        validation: `Examples` of the validation set.
    """
    if not (_is_comparable(train.images) and _is_comparable(validation.images)):
        return None
    chosen = np.unique(np.linspace(0, len(validation) - 1, min(_MOST, len(validation))).astype(int)).tolist()
    validation_images, train_images = {i: validation.images[i] for i in chosen}, dict(enumerate(train.images))
    keys = [dict.fromkeys(validation_images, ()), dict.fromkeys(train_images, ())]
    for fingerprint in (_kind, _block, _whole):
        for set_keys, images in zip(keys, (validation_images, train_images), strict=True):
            for i in set_keys:
                set_keys[i] = (set_keys[i], fingerprint(images[i]))
        in_both = {key for key in keys[0].values() if key[1] is not None} & set(keys[1].values())
        keys = [{i: key for i, key in set_keys.items() if key in in_both} for set_keys in keys]
    duplicates, originals = keys[0], {key: i for i, key in reversed(keys[1].items())}
    if not duplicates:
        return None
    first = next(iter(duplicates))
    total = f"{len(chosen)}" if len(chosen) == len(validation) else f"{len(chosen)} compared"
    return (
        f"{len(duplicates)} of {total} validation images are also in the training set, for example "
        f"{printable(validation.name_of(first))}, a copy of {printable(train.name_of(originals[duplicates[first]]))}. "
        "Validation accuracy will be too high: remove the copies from one of the sets."
    )


def _is_comparable(images):
    """Return whether all images are paths or arrays in memory, which can be accessed without decoding an image."""
    if isinstance(images, Picked):
        return _is_comparable(images.items)
    if isinstance(images, Joined):
        return all(map(_is_comparable, images.sequences))
    return isinstance(images, (list, tuple, np.ndarray))


def _kind(image):
    """Return the size of a file, or the shape and type of an array; None for anything else."""
    if isinstance(image, np.ndarray):
        return (image.shape, str(image.dtype)) if image.size and image.dtype != object else None
    if isinstance(image, (str, os.PathLike)):
        try:
            return os.stat(image).st_size or None
        except OSError:  # reported when the image is read
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
