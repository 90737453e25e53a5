"""Read examples from image folders, manifests, arrays and Hugging Face datasets."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_common.notices import warn
from mobilenet_runtime.examples import arrays, folders, huggingface, manifests
from mobilenet_runtime.examples.duplicates import shared_images
from mobilenet_runtime.examples.examples import Data, Examples, Joined
from mobilenet_runtime.examples.labels import class_names_of, label_name, label_numbers
from mobilenet_runtime.examples.parts import TEST, TRAIN, VALIDATION, WHOLE, Part, part_name
from mobilenet_runtime.examples.splitting import split as split_examples

_KINDS = (
    "an image folder (one sub-folder per class), a manifest (.csv or .jsonl), an .npz file, or a Hugging Face dataset "
    "(hf:user/name, or a folder written by save_to_disk)"
)


def read_data(data: Any, *, validation: Any = None, validation_fraction: float = 0.2, seed: int = 0) -> Data:
    """Read a training set and a validation set.

    The validation set is the first of these that exists: `validation`, the validation split of `data`, its test split,
    or a random fraction of each class.

    Args:
        data: An image folder (one sub-folder per class, optionally below train/ and validation/, val/ or test/), a
            manifest (a `.csv` or `.jsonl` file with path, label and optionally split), an `.npz` file, a Hugging Face
            dataset (`"hf:user/name"`, a folder written by `save_to_disk`, or a dataset object), or `Examples`.
        validation: Data for validation, in the same forms as `data`; None to use a part of `data`.
        validation_fraction: Fraction of each class to use for validation if neither `validation` nor a split exists,
            in [0, 1).
        seed: Seed of the random choice, at least 0.

    Returns:
        `Data(train, validation)`. Both have the classes of the training set.

    Raises:
        ValueError: If there is no training data, if it has fewer than two classes, or if an entry is wrong. The message
            says where.

    Warns:
        MobileNetWarning: If images are in both sets. The message gives their number.
    """
    train_and_validation = _train_and_validation(data, validation, validation_fraction, seed)
    message = shared_images(*train_and_validation)
    if message:
        warn(message)
    return train_and_validation


def _train_and_validation(data, validation, validation_fraction, seed):
    parts, class_names = _read(data)
    train = parts.get(TRAIN) or parts.get(WHOLE)
    if train is None and parts:
        raise ArgumentError(f"{_shown(data)} has no split named train, only {', '.join(parts)}.")
    train = _examples(data, [train] if train else [], class_names)
    present = np.count_nonzero(train.counts)
    if present < 2:
        raise ArgumentError(f"All images of {_shown(data)} belong to one class: training needs at least two.")
    source = data
    if validation is not None:
        source, (parts, _) = validation, _read(validation)
        if VALIDATION not in parts and TEST not in parts:
            return Data(train, _examples(validation, parts.values(), train.class_names))
    for name in (VALIDATION, TEST):
        if name in parts:
            return Data(train, _examples(source, [parts[name]], train.class_names))
    return split_examples(train, validation_fraction, seed)


def read_examples(data: Any, split: str | None = None, *, class_names: Sequence[str] | None = None) -> Examples:
    """Read all of `data`, or one of its splits, for evaluation.

    Args:
        data: Labeled images in any form that `read_data` accepts.
        split: Name of a split of `data`, such as `"train"`, `"validation"` or `"test"`; None for all of `data`.
        class_names: Names of the model's classes, to which labels are converted. None for the classes of `data`.

    Returns:
        The `Examples`.

    Raises:
        ValueError: If `data` is wrong (see `read_data`) or has no such split.
    """
    parts, data_class_names = _read(data)
    if split is not None:
        if part_name(split) not in parts:
            known = ", ".join(filter(None, parts))
            hint = f"Its splits: {known}." if known else "It has no splits: omit split."
            raise ArgumentError(f"split={split!r} is not in {_shown(data)}. {hint}")
        parts = {split: parts[part_name(split)]}
    return _examples(data, parts.values(), data_class_names if class_names is None else tuple(class_names))


def _read(data):
    """Return `({name: Part}, class names or None)` of any data source."""
    if isinstance(data, Examples):
        labels = [data.class_names[i] for i in data.labels]
        return {WHOLE: Part(data.images, labels, data.name_of, data.names)}, data.class_names
    if huggingface.is_dataset(data):
        return huggingface.read(data)
    if not isinstance(data, (str, os.PathLike)):
        raise ArgumentError(f"data of type {type(data).__name__} is not allowed: pass {_KINDS}, or Examples.")
    if str(data).startswith(huggingface.PREFIX):
        return huggingface.download(str(data).removeprefix(huggingface.PREFIX))
    path = Path(data)
    if not path.exists():
        raise ArgumentError(f"{path} does not exist. It must be {_KINDS}.")
    if path.is_dir():
        return huggingface.load(path) if huggingface.is_saved(path) else folders.read(path)
    if path.suffix.lower() in manifests.ENDINGS:
        return manifests.read(path)
    if path.suffix.lower() == ".npz":
        return arrays.read(path)
    raise ArgumentError(f"{path} has an unknown extension. It must be {_KINDS}.")


def _examples(data, parts, class_names):
    """Return the `Examples` of all `parts`, with the classes `class_names`, or those that occur in their labels."""
    parts = [part for part in parts if len(part.images)]
    if not parts:
        raise ArgumentError(f"{_shown(data)} has no images.")
    if class_names is None:
        class_names = class_names_of(_checked(parts))
    labels = np.concatenate([label_numbers(part.labels, class_names, part.place_of) for part in parts])
    images, names = parts[0].images, parts[0].names
    if len(parts) > 1:
        are_lists = all(isinstance(part.images, list) for part in parts)
        images = sum((part.images for part in parts), []) if are_lists else Joined([part.images for part in parts])
        names = None if names is None else Joined([part.names for part in parts])
    return Examples(images, labels, class_names, names)


def _checked(parts):
    """Yield the class name of each label. The error about a wrong label says where it is."""
    for part in parts:
        for i, label in enumerate(part.labels):
            try:
                yield label_name(label)
            except ArgumentError as error:
                raise ArgumentError(f"{part.place_of(i)}: {error}") from None


def _shown(data):
    return str(data) if isinstance(data, (str, os.PathLike)) else f"The given {type(data).__name__}"
