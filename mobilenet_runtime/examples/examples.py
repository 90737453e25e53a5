"""The container of labeled images that all data sources are converted to."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mobilenet_common.errors import ArgumentError


class Joined(Sequence):
    """Concatenation of sequences, without copying them."""

    def __init__(self, sequences):
        self.sequences = sequences
        self._ends = np.cumsum([len(sequence) for sequence in sequences])

    def __len__(self):
        return int(self._ends[-1])

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < len(self):
            raise IndexError(i)
        part = int(np.searchsorted(self._ends, i, "right"))
        return self.sequences[part][i - int(self._ends[part - 1]) if part else i]


class Picked(Sequence):
    """Items of a sequence at given indices, without copying them."""

    def __init__(self, items, indices):
        self.items, self._indices = items, indices

    def __len__(self):
        return len(self._indices)

    def __getitem__(self, i: Any) -> Any:
        return self.items[int(self._indices[i])]


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Labeled images.

    Attributes:
        images: Sequence of images: paths, uint8 arrays of shape `(height, width)` or `(height, width, channels)`, or
            PIL images.
        labels: int64 array of shape `(n,)` with class numbers in 0..classes-1.
        class_names: Name of each class, in the order of the class numbers.
        names: Names of images without a path, such as `"digits.npz[17]"`, or None.

    Raises:
        ValueError: If lengths differ, a class name is repeated, or a label is out of range.
    """

    images: Sequence
    labels: np.ndarray
    class_names: tuple[str, ...]
    names: Sequence[str] | None = None

    def __post_init__(self):
        labels = np.asarray(self.labels)
        class_names = tuple(map(str, self.class_names))
        if labels.ndim != 1 or (labels.size and labels.dtype.kind not in "iu"):
            raise ArgumentError(
                f"labels of shape {labels.shape} and type {labels.dtype} are not allowed: they must be (n,) integers."
            )
        for what, values in (("labels", labels), ("names", self.names)):
            if values is not None and len(values) != len(self.images):
                raise ArgumentError(f"There are {len(self.images)} images, but {len(values)} {what}.")
        if len(set(class_names)) < len(class_names):
            raise ArgumentError(f"class_names={class_names!r} contains a name twice: class names must be unique.")
        wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
        if wrong.size:
            raise ArgumentError(
                f"labels[{wrong[0]}]={labels[wrong[0]]} is out of range: there are {len(class_names)} classes, so "
                f"labels must be in 0..{len(class_names) - 1}. In total, {wrong.size} labels are out of range."
            )
        object.__setattr__(self, "labels", labels.astype("int64"))
        object.__setattr__(self, "class_names", class_names)

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: "Sequence[int] | range | np.ndarray") -> "Examples":
        """Return the `Examples` at `indices`, in the order of `indices` and with the same classes."""
        indices = np.asarray(indices, "int64")
        if isinstance(self.images, (list, tuple)):
            images = [self.images[i] for i in indices]
        else:
            images = Picked(self.images, indices)
        names = None if self.names is None else [str(self.names[i]) for i in indices]
        return Examples(images, self.labels[indices], self.class_names, names)

    def name_of(self, i: int) -> str:
        """Return the name of image `i` for messages and reports: its name, or else its path, or else its number."""
        if self.names is not None:
            return str(self.names[i])
        image = self.images[i]
        return str(image) if isinstance(image, (str, os.PathLike)) else f"image {i}"

    @property
    def counts(self) -> np.ndarray:
        """Number of images of each class, an int64 array of shape `(classes,)`."""
        return np.bincount(self.labels, minlength=len(self.class_names))


class Data(NamedTuple):
    """A training set and a validation set.

    Attributes:
        train: `Examples` to train on.
        validation: `Examples` to validate on.
    """

    train: Examples
    validation: Examples
