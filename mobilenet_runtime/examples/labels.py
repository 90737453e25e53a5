"""Convert labels, given as names or numbers, to class numbers."""

import re
from typing import Any

import numpy as np

from mobilenet_common.errors import ArgumentError, printable, unknown_name

_INTEGER = re.compile(r"[+-]?\d+")


def class_names_of(labels):
    """Return the unique class names in `labels`, sorted numerically if all are numbers, otherwise alphabetically."""
    names = {label_name(label) for label in labels}
    return tuple(sorted(names, key=int if all(map(_INTEGER.fullmatch, names)) else None))


def label_numbers(labels, class_names, place_of):
    """Return the class number of each label as an int64 array of shape `(n,)`.

    Args:
        labels: Sequence of class names or numbers. A number is an index into `class_names`, unless all class names are
            numbers themselves.
        class_names: Names of the classes, in order.
        place_of: Function that returns where label `i` is written, for messages.

    Raises:
        ValueError: If a label is missing, unknown or out of range.
    """
    indices = {name: i for i, name in enumerate(class_names)}
    are_names_numeric = all(map(_INTEGER.fullmatch, indices))
    numbers = np.empty(len(labels), "int64")
    for i, label in enumerate(labels):
        try:
            name = label_name(label)
            if name in indices:
                numbers[i] = indices[name]
            elif are_names_numeric or not _INTEGER.fullmatch(name):
                raise unknown_name("label", name, class_names)
            elif int(name) >= len(class_names):
                raise ArgumentError(
                    f"label {name} is out of range: there are {len(class_names)} classes, so labels must be in "
                    f"0..{len(class_names) - 1}."
                )
            else:
                numbers[i] = int(name)
        except ArgumentError as error:
            raise ArgumentError(f"{place_of(i)}: {error}") from None
    return numbers


def label_name(label: Any) -> str:
    """Return a label as a class name. Numbers are converted to strings.

    Raises:
        ValueError: If the label is missing, a negative number, or neither a string nor a whole number.
    """
    if (
        isinstance(label, (int, float, np.integer, np.floating))
        and not isinstance(label, (bool, np.bool_))
        and label == label // 1
    ):
        label = str(int(label))
    if not isinstance(label, str) or not label.strip():
        raise ArgumentError(f"label {label!r} is missing or invalid: use a name or a whole number.")
    label = printable(label.strip())
    if not _INTEGER.fullmatch(label):
        return label
    if int(label) < 0:
        raise ArgumentError(f"label {label} is out of range: numbers must be at least 0.")
    return str(int(label))
