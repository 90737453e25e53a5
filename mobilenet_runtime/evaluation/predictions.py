"""Save and read a classifier's predictions, for example to train a student without its teacher."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_common.types import PathLike

ENDING = ".npz"
_SHOWN = 5


def save_predictions(
    path: PathLike, probabilities: np.ndarray, names: Sequence[str], class_names: Sequence[str] | None = None
) -> None:
    """Write a classifier's predictions to an `.npz` file for `read_predictions`.

    Args:
        path: Path of the file.
        probabilities: Array of shape `(n, classes)`.
        names: Unique names of the n examples: paths of images, or the names that `Examples.name_of` returns.
        class_names: Names of the classes, in order. With them, `read_predictions` can return the classes in another
            order. None stores no names.

    Raises:
        ValueError: If lengths differ, or if a name is repeated.
        OSError: If the file can't be written.
    """
    texts = [str(name) for name in names]
    if len(set(texts)) != len(texts) or len(texts) != len(probabilities):
        raise ArgumentError(
            f"names must be unique, one for each of the {len(probabilities)} rows of probabilities, got {len(texts)} "
            f"names, {len(set(texts))} of them distinct."
        )
    arrays: dict[str, Any] = {"probabilities": np.asarray(probabilities, "float32"), "names": np.asarray(texts)}
    if class_names is not None:
        arrays["class_names"] = np.asarray([str(name) for name in class_names])
        if len(class_names) != arrays["probabilities"].shape[-1]:
            raise ArgumentError(
                f"class_names of length {len(class_names)} are not allowed: the probabilities have "
                f"{arrays['probabilities'].shape[-1]} classes."
            )
    with open(path, "wb") as file:  # NumPy would append .npz to a path with another extension
        np.savez_compressed(file, **arrays)


def read_predictions(path: PathLike, names: Sequence[str], class_names: Sequence[str] | None = None) -> np.ndarray:
    """Read the predictions that `save_predictions` wrote.

    Args:
        path: Path of the file.
        names: Names of the examples to return, in order.
        class_names: Names of the classes to return, in order; None for the order of the file. A file without class
            names must have the same number of classes, which are returned in its order.

    Returns:
        Probabilities as an array of shape `(n, classes)`, in the order of `names`.

    Raises:
        ValueError: If the file can't be read, holds no probabilities, lacks an example, or has different classes.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            probabilities, saved = file["probabilities"], file["names"]
            saved_classes = file["class_names"].tolist() if "class_names" in file else None
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ArgumentError(
            f"predictions={str(path)!r} can't be read: {error}. It must be a file written by save_predictions."
        ) from None
    sums = probabilities.sum(axis=-1) if probabilities.ndim == 2 else np.zeros(1)
    if not np.all(np.abs(sums - 1) < 1e-2) or len(saved) != len(probabilities) or (probabilities < 0).any():
        raise ArgumentError(
            f"predictions={str(path)!r} contains invalid probabilities: it must have one row per example, and each row "
            "must be non-negative and sum to 1."
        )
    rows_by_name = {str(name): row for row, name in enumerate(saved)}
    missing = [str(name) for name in names if str(name) not in rows_by_name]
    if missing:
        raise ArgumentError(
            f"predictions={str(path)!r} lacks {len(missing)} of {len(names)} examples, the first of them "
            f"{missing[0]!r}: save the predictions of the teacher for the same data."
        )
    rows = probabilities[[rows_by_name[str(name)] for name in names]]
    if class_names is None:
        return rows
    return rows[:, _columns(path, saved_classes, list(class_names), probabilities.shape[1])]


def _columns(path, saved, requested, count):
    """Return the column of each of the `requested` classes."""
    if saved is None and len(requested) == count:
        return list(range(count))
    if saved is None or sorted(saved) != sorted(requested):
        actual = f"{count} classes" if saved is None else ", ".join(saved[:_SHOWN]) + ", ..." * (len(saved) > _SHOWN)
        expected = ", ".join(requested[:_SHOWN]) + ", ..." * (len(requested) > _SHOWN)
        raise ArgumentError(
            f"predictions={str(path)!r} has other classes than the data: {actual} instead of {expected}. Use a teacher "
            "with the same classes."
        )
    return [saved.index(name) for name in requested]
