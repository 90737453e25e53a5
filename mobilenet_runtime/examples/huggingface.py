"""Read datasets of the Hugging Face library `datasets`."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_common.libraries import import_library
from mobilenet_runtime.examples.parts import WHOLE, Part, part_name
from mobilenet_runtime.images import ImageError, pillow

PREFIX = "hf:"


class _Images(Sequence):
    """The images of a dataset column, decoded on access."""

    def __init__(self, dataset, column, names):
        self._dataset = dataset.select_columns([column]).cast_column(column, _datasets().Image(decode=False))
        self._column, self._names = column, names

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, i):
        stored = self._dataset[int(i)][self._column] or {}
        content = stored.get("bytes")
        try:
            image = pillow("Image").open(io.BytesIO(content) if content is not None else stored["path"])
            image.load()
        except Exception as error:  # Pillow's decoders raise many types of errors
            raise ImageError(f"{self._names[i]} can't be read as an image: {error or type(error).__name__}.") from None
        return image


def is_dataset(data):
    """Return whether `data` is a `Dataset` or `DatasetDict`, without importing the library."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(data, (library.Dataset, library.DatasetDict))


def is_saved(folder: Path) -> bool:
    """Return whether `folder` was written by `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def load(folder):
    """Read a folder written by `save_to_disk`. The result is that of `read`."""
    try:
        return read(_datasets().load_from_disk(str(folder)), str(folder))
    except (OSError, KeyError) as error:
        raise ArgumentError(f"{folder} can't be read as a Hugging Face dataset: {error}") from None


def download(name):
    """Download and read the dataset `name` of the Hugging Face Hub. The result is that of `read`."""
    try:
        return read(_datasets().load_dataset(name), PREFIX + name)
    except (OSError, RuntimeError) as error:
        raise ArgumentError(f"{PREFIX}{name} can't be downloaded: {error}") from None


def read(data, name="the dataset"):
    """Read a `Dataset` or `DatasetDict`.

    Args:
        data: The dataset.
        name: Name of the dataset, for messages.

    Returns:
        A tuple `({name: Part}, class names)`; the class names are None if the labels have no names.

    Raises:
        ValueError: If there is not exactly one image column and one label column, a label is out of range, or splits
            have different classes.
    """
    splits = dict(data) if isinstance(data, dict) else {WHOLE: data}
    parts = {part_name(split): _part(dataset, name, split) for split, dataset in splits.items()}
    class_names = {names for _, names in parts.values()}
    if len(class_names) > 1:
        raise ArgumentError(f"The splits of {name} have different classes: {', '.join(splits)}.")
    return {split: part for split, (part, _) in parts.items()}, class_names.pop() if class_names else None


def _part(dataset, name, split):
    library = _datasets()
    images = [column for column, kind in dataset.features.items() if isinstance(kind, library.Image)]
    labels = [column for column, kind in dataset.features.items() if isinstance(kind, library.ClassLabel)]
    plain = [column for column in ("label", "labels") if column in dataset.features]
    labels = [column for column in labels if column in plain] or labels or plain
    if len(images) != 1 or len(labels) != 1:
        columns = ", ".join(f"{column} ({type(kind).__name__})" for column, kind in dataset.features.items())
        raise ArgumentError(
            f"{name} must have one Image column, and one ClassLabel column or a column named label. It has {columns}. "
            "Select the columns with select_columns, and pass the resulting dataset."
        )
    full_name = f"{name}[{split}]" if split else name
    class_names = getattr(dataset.features[labels[0]], "names", None)
    values = np.asarray(dataset.with_format("numpy", columns=labels)[labels[0]][:]).tolist() if len(dataset) else []
    names = [f"{full_name}[{i}]" for i in range(len(dataset))]
    if class_names:
        wrong = [i for i, value in enumerate(values) if not isinstance(value, int) or not 0 <= value < len(class_names)]
        if wrong:
            raise ArgumentError(
                f"{names[wrong[0]]}: label {values[wrong[0]]} is missing or out of range: there are {len(class_names)} "
                f"classes. In total, {len(wrong)} labels of {full_name} are wrong: check whether this split has labels."
            )
        values = [class_names[value] for value in values]
    part = Part(_Images(dataset, images[0], names), values, names.__getitem__, names)
    return part, tuple(class_names) if class_names else None


def _datasets():
    return import_library("datasets", "train", "A Hugging Face dataset")
