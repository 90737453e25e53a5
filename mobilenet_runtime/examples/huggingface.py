"""Datasets of the Hugging Face library `datasets`."""

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
    """The images of a column, decoded when asked for."""

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
        except Exception as error:  # Pillow's formats raise whatever their decoders do
            raise ImageError(f"{self._names[i]} can't be read as an image: {error or type(error).__name__}.") from None
        return image


def is_dataset(data):
    """Return whether `data` is an object of the library, which is not imported to find out."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(data, (library.Dataset, library.DatasetDict))


def is_saved(folder: Path) -> bool:
    """Return whether `save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def load(folder):
    """Read a folder that `save_to_disk` wrote, as `read`."""
    try:
        return read(_datasets().load_from_disk(str(folder)), str(folder))
    except (OSError, KeyError) as error:
        raise ArgumentError(f"{folder} can't be read as a Hugging Face dataset: {error}") from None


def download(name):
    """Read a published dataset of that name, as `read`."""
    try:
        return read(_datasets().load_dataset(name), PREFIX + name)
    except (OSError, RuntimeError) as error:
        raise ArgumentError(f"{PREFIX}{name} can't be fetched: {error}") from None


def read(data, name="the dataset"):
    """Return `({part: Part}, class names or None)` of a `Dataset` or `DatasetDict`."""
    splits = dict(data) if isinstance(data, dict) else {WHOLE: data}
    read_splits = {part_name(split): _part(dataset, name, split) for split, dataset in splits.items()}
    class_names = {names for _, names in read_splits.values()}
    if len(class_names) > 1:
        raise ArgumentError(f"The splits of {name} have different classes: {', '.join(splits)}.")
    return {split: part for split, (part, _) in read_splits.items()}, class_names.pop() if class_names else None


def _part(dataset, name, split):
    library = _datasets()
    images = [column for column, kind in dataset.features.items() if isinstance(kind, library.Image)]
    labels = [column for column, kind in dataset.features.items() if isinstance(kind, library.ClassLabel)]
    plain = [column for column in ("label", "labels") if column in dataset.features]
    labels = [column for column in labels if column in plain] or labels or plain
    if len(images) != 1 or len(labels) != 1:
        columns = ", ".join(f"{column} ({type(kind).__name__})" for column, kind in dataset.features.items())
        raise ArgumentError(
            f"{name} must have one Image column and one ClassLabel column, or one called label. It has {columns}. "
            "Choose with select_columns, and give the dataset itself."
        )
    place = f"{name}[{split}]" if split else name

    class_names = getattr(dataset.features[labels[0]], "names", None)
    values = np.asarray(dataset.with_format("numpy", columns=labels)[labels[0]][:]).tolist() if len(dataset) else []
    names = [f"{place}[{i}]" for i in range(len(dataset))]
    if class_names:
        wrong = [i for i, value in enumerate(values) if not isinstance(value, int) or not 0 <= value < len(class_names)]
        if wrong:
            raise ArgumentError(
                f"{names[wrong[0]]}: label {values[wrong[0]]} is missing or out of range: there are {len(class_names)} "
                f"classes. {len(wrong)} labels of {place} are so; does this split have labels?"
            )
        values = [class_names[value] for value in values]
    part = Part(_Images(dataset, images[0], names), values, names.__getitem__, names)
    return part, tuple(class_names) if class_names else None


def _datasets():
    return import_library("datasets", "train", "A Hugging Face dataset")
