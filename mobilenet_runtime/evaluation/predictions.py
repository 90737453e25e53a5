"""A classifier's predictions in a file: what a student learns from when its teacher is not there."""

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
    """Write a classifier's predictions to a `.npz` that `read_predictions` reads.

    Args:
        path: Of the file.
        probabilities: `(n, classes)`.
        names: Of the n examples, each once; paths of images, or what `Examples.name_of` says.
        class_names: Of the classes, in order, so that they are found whatever the order of those who read; or None.

    Raises:
        ValueError: The lengths differ, or an example is named twice.
        OSError: The file can't be written.
    """
    texts = [str(name) for name in names]
    if len(set(texts)) != len(texts) or len(texts) != len(probabilities):
        raise ArgumentError(
            f"names are not allowed: {len(probabilities)} rows of probabilities need as many different names."
        )
    arrays: dict[str, Any] = {"probabilities": np.asarray(probabilities, "float32"), "names": np.asarray(texts)}
    if class_names is not None:
        arrays["class_names"] = np.asarray([str(name) for name in class_names])
        if len(class_names) != arrays["probabilities"].shape[-1]:
            raise ArgumentError(
                f"class_names of length {len(class_names)} are not allowed: the probabilities are of "
                f"{arrays['probabilities'].shape[-1]} classes."
            )
    with open(path, "wb") as file:  # an open file, since NumPy appends an ending to a path that has another
        np.savez_compressed(file, **arrays)


def read_predictions(path: PathLike, names: Sequence[str], class_names: Sequence[str] | None = None) -> np.ndarray:
    """Return a classifier's saved probabilities `(n, classes)` for examples, in the order of their names.

    Args:
        path: Of the file.
        names: Of the examples.
        class_names: The order in which the classes are wanted, where the file names them; None for the file's own.

    Raises:
        ValueError: The file can't be read, holds no probabilities, lacks an example, or has other classes.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            probabilities, saved = file["probabilities"], file["names"]
            saved_classes = file["class_names"].tolist() if "class_names" in file else None
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ArgumentError(
            f"predictions={str(path)!r} can't be read: {error}. It must be what save_predictions wrote."
        ) from None
    sums = probabilities.sum(axis=-1) if probabilities.ndim == 2 else np.zeros(1)
    if not np.all(np.abs(sums - 1) < 1e-2) or len(saved) != len(probabilities) or (probabilities < 0).any():
        raise ArgumentError(f"predictions={str(path)!r} are no probabilities: a row must be an example's and sum to 1.")
    place = {str(name): row for row, name in enumerate(saved)}
    missing = [str(name) for name in names if str(name) not in place]
    if missing:
        raise ArgumentError(
            f"predictions={str(path)!r} lack {len(missing)} of {len(names)} examples, the first {missing[0]!r}: "
            "let the teacher predict for the same data."
        )
    rows = probabilities[[place[str(name)] for name in names]]
    if class_names is None:
        return rows
    return rows[:, _columns(path, saved_classes, list(class_names), probabilities.shape[1])]


def _columns(path, saved, wanted, count):
    """Return where each of the `wanted` classes is."""
    if saved is None and len(wanted) == count:
        return list(range(count))
    if saved is None or sorted(saved) != sorted(wanted):
        own = f"{count} classes" if saved is None else ", ".join(saved[:_SHOWN]) + ", ..." * (len(saved) > _SHOWN)
        theirs = ", ".join(wanted[:_SHOWN]) + ", ..." * (len(wanted) > _SHOWN)
        raise ArgumentError(
            f"predictions={str(path)!r} are of other classes than the data: {own} in place of {theirs}. Let a teacher "
            "answer that knows the same classes."
        )
    return [saved.index(name) for name in wanted]
