"""Read images and labels from the arrays of an `.npz` file."""

import zipfile
from collections.abc import Sequence

import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_runtime.examples.labels import label_numbers
from mobilenet_runtime.examples.parts import TEST, TRAIN, VALIDATION, WHOLE, Part

_KEYS = {
    WHOLE: (("x", "y"), ("images", "labels")),
    TRAIN: (("x_train", "y_train"),),
    VALIDATION: (("x_val", "y_val"), ("x_validation", "y_validation")),
    TEST: (("x_test", "y_test"),),
}


class _Names(Sequence):
    """A sequence of names such as `digits.npz[17]`, created on access."""

    def __init__(self, prefix, length):
        self._prefix, self._length = prefix, length

    def __len__(self):
        return self._length

    def __getitem__(self, i):
        return f"{self._prefix}[{i}]"


def read(path):
    """Read an `.npz` file.

    Args:
        path: Path of the file.

    Returns:
        A tuple `({name: Part}, class names)`; the class names are None if the file has none.

    Raises:
        ValueError: If the file can't be read without unpickling, lacks an array, or has an array that can't be images
            or labels.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ArgumentError(f"{path} can't be read as an .npz of plain arrays: {error}") from None
    class_names = None
    if "class_names" in arrays:
        class_names = tuple(map(str, arrays["class_names"].tolist()))
    parts = {}
    for name, pairs in _KEYS.items():
        for images, labels in pairs:
            if images in arrays and labels in arrays:
                parts[name] = _part(path, arrays, images, labels, class_names)
                break
    if not parts or (WHOLE in parts and len(parts) > 1):
        raise ArgumentError(
            f"{path} has the arrays {', '.join(arrays)}. It must have x and y, or images and labels, or x_train "
            "and y_train (and may have x_val and y_val, x_test and y_test, and class_names)."
        )
    return parts, class_names


def _part(path, arrays, x, y, class_names):
    images, labels = _images(path, x, arrays[x]), arrays[y]
    if labels.ndim == 2 and labels.shape[1] == 1:  # the shape of labels in keras.datasets
        labels = labels[:, 0]
    if labels.shape != (len(images),):
        raise ArgumentError(
            f"{path}: {y} has shape {labels.shape}, but must have shape ({len(images)},), one label per image of {x}."
        )
    labels = labels.tolist()
    names = _Names(path.name if x in ("x", "images") else f"{path.name}:{x}", len(images))

    def place_of(i):
        return f"{path}, {y}[{i}]"

    if class_names:
        labels = [class_names[i] for i in label_numbers(labels, class_names, place_of)]
    return Part(images, labels, place_of, names)


def _images(path, key, array):
    if (
        array.ndim not in (3, 4)
        or (array.ndim == 4 and array.shape[-1] not in (1, 3, 4))
        or array.dtype.kind not in "uif"
    ):
        raise ArgumentError(
            f"{path}: {key} of shape {array.shape} and type {array.dtype} is not an array of images: it must "
            "hold numbers in the shape (n, height, width) or (n, height, width, 1, 3 or 4)."
        )
    if array.dtype == np.uint8 or not array.size:
        return array.astype("uint8", copy=False)
    low, high = array.min(), array.max()
    if not (0 <= low and high <= 255) or (array.dtype.kind == "f" and high <= 1):
        raise ArgumentError(
            f"{path}: {key} has values from {low} to {high}, but pixels must be in 0..255: scale them first."
        )
    return np.rint(array).astype("uint8")
