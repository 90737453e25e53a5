"""Labels as users write them, by name or by number, into numbers of classes."""

import re
from typing import Any

import numpy as np

from mobilenet_common.errors import ArgumentError, printable, unknown_name

_INTEGER = re.compile(r"[+-]?\d+")


def class_names_of(labels):
    """Return the classes that `labels` name, sorted: by number where all are numbers, else by the alphabet."""
    names = {label_name(label) for label in labels}
    return tuple(sorted(names, key=int if all(map(_INTEGER.fullmatch, names)) else None))


def label_numbers(labels, class_names, place_of):
    """Return `(n,)` int64: the number of each label's class.

    Args:
        labels: Names or numbers. A number is a place in `class_names`, unless all of those are numbers themselves.
        class_names: Of the classes, in their order.
        place_of: Gives where label `i` stands, for messages.

    Raises:
        ValueError: A label is missing, unknown or out of range.
    """
    places = {name: i for i, name in enumerate(class_names)}
    named_by_numbers = all(map(_INTEGER.fullmatch, places))
    found = np.empty(len(labels), "int64")
    for i, label in enumerate(labels):
        try:
            name = label_name(label)
            if name in places:
                found[i] = places[name]
            elif named_by_numbers or not _INTEGER.fullmatch(name):
                raise unknown_name("label", name, class_names)
            elif int(name) >= len(class_names):
                raise ArgumentError(
                    f"label {name} is out of range: there are {len(class_names)} classes, so labels are 0 to "
                    f"{len(class_names) - 1}."
                )
            else:
                found[i] = int(name)
        except ArgumentError as error:
            raise ArgumentError(f"{place_of(i)}: {error}") from None
    return found


def label_name(label: Any) -> str:
    """Return a label as a name: numbers as their digits.

    Raises:
        ValueError: It is missing, negative or no label.
    """
    if (
        isinstance(label, (int, float, np.integer, np.floating))
        and not isinstance(label, (bool, np.bool_))
        and label == label // 1
    ):
        label = str(int(label))
    if not isinstance(label, str) or not label.strip():
        raise ArgumentError(f"label {label!r} is missing or no label: give a name or a whole number.")
    label = printable(label.strip())
    if not _INTEGER.fullmatch(label):
        return label
    if int(label) < 0:
        raise ArgumentError(f"label {label} is out of range: numbers begin at 0.")
    return str(int(label))
