"""Examples from what users have: folders, manifests, arrays, Hugging Face datasets."""

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
    "a folder of class folders, a manifest (.csv or .jsonl), an .npz, or a Hugging Face dataset (hf:user/name, or a "
    "folder that save_to_disk wrote)"
)


def read_data(data: Any, *, validation: Any = None, validation_fraction: float = 0.2, seed: int = 0) -> Data:
    """Read what to train on and what to validate with.

    Validation is the first of these that there is: `validation`; the part of `data` called validation; the one called
    test; a fraction of each class, drawn by `seed`.

    Args:
        data: A folder of class folders (or with train/ and validation/, val/ or test/ in it), a manifest (`.csv` or
            `.jsonl` with path, label and perhaps split), an `.npz`, a Hugging Face dataset (`"hf:user/name"`, a folder
            that `save_to_disk` wrote, or the object), or `Examples`.
        validation: The same, for validation; None for a part of `data`.
        validation_fraction: Fraction of each class to hold out where no validation is given, in [0, 1).
        seed: Of that draw, at least 0.

    Returns:
        `Data(train, validation)`, both with the classes of training. Images that are in both are counted in a warning.

    Raises:
        ValueError: There is nothing to train on, fewer than two classes, or something in it is wrong; the message says
            where.
    """
    found = _train_and_validation(data, validation, validation_fraction, seed)
    shared = shared_images(*found)
    if shared:
        warn(shared)
    return found


def _train_and_validation(data, validation, validation_fraction, seed):
    parts, class_names = _read(data)
    train = parts.get(TRAIN) or parts.get(WHOLE)
    if train is None and parts:
        raise ArgumentError(f"{_shown(data)} has no part called train, only {', '.join(parts)}.")
    train = _examples(data, [train] if train else [], class_names)
    present = np.count_nonzero(train.counts)
    if present < 2:
        raise ArgumentError(f"All images of {_shown(data)} are of one class: training needs two at least.")
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
    """Read all of `data`, or one of its parts, for evaluation.

    Args:
        data: As for `read_data`.
        split: `"train"`, `"validation"`, `"test"` or another part that `data` has; None for all of it.
        class_names: Of the model: labels become numbers among these. None for the classes of `data` itself.

    Returns:
        `Examples`.

    Raises:
        ValueError: As for `read_data`, or there is no such part.
    """
    parts, own_names = _read(data)
    if split is not None:
        if part_name(split) not in parts:
            known = ", ".join(filter(None, parts))
            there = f"Its parts: {known}." if known else "It is not split: leave split out."
            raise ArgumentError(f"split={split!r} is not in {_shown(data)}. {there}")
        parts = {split: parts[part_name(split)]}
    return _examples(data, parts.values(), own_names if class_names is None else tuple(class_names))


def _read(data):
    """Return `({name: Part}, class names or None)`."""
    if isinstance(data, Examples):
        labels = [data.class_names[i] for i in data.labels]
        return {WHOLE: Part(data.images, labels, data.name_of, data.names)}, data.class_names
    if huggingface.is_dataset(data):
        return huggingface.read(data)
    if not isinstance(data, (str, os.PathLike)):
        raise ArgumentError(f"data of type {type(data).__name__} is not allowed: give {_KINDS}, or Examples.")
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
    raise ArgumentError(f"{path} has no ending that is known. Data is {_KINDS}.")


def _examples(data, parts, class_names):
    """Return the `Examples` of all `parts`, in terms of `class_names`, or of what their labels name."""
    parts = [part for part in parts if len(part.images)]
    if not parts:
        raise ArgumentError(f"{_shown(data)} has no images.")
    if class_names is None:
        class_names = class_names_of(_checked(parts))
    labels = np.concatenate([label_numbers(part.labels, class_names, part.place_of) for part in parts])
    images, names = parts[0].images, parts[0].names
    if len(parts) > 1:
        lists = all(isinstance(part.images, list) for part in parts)
        images = sum((part.images for part in parts), []) if lists else Joined([part.images for part in parts])
        names = None if names is None else Joined([part.names for part in parts])
    return Examples(images, labels, class_names, names)


def _checked(parts):
    """Yield the names of all labels; an error says where a wrong one is."""
    for part in parts:
        for i, label in enumerate(part.labels):
            try:
                yield label_name(label)
            except ArgumentError as error:
                raise ArgumentError(f"{part.place_of(i)}: {error}") from None


def _shown(data):
    return str(data) if isinstance(data, (str, os.PathLike)) else f"The given {type(data).__name__}"
