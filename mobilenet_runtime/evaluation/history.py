"""What a run logged by epoch."""

import csv
import math
import os
from collections.abc import Mapping

from mobilenet_common.errors import ArgumentError


def read_history(history):
    """Return a record of numbers for each epoch.

    Args:
        history: Records by epoch, `[{"loss": 0.5, ...}]`; columns, `{"loss": [0.5, ...]}`, as Keras's `History` has
            them; or the path of a CSV log, as Keras's `CSVLogger` writes it.

    Returns:
        `[{name: number}]`, each with its `epoch`, the first of which is 1 where none are given.

    Raises:
        ValueError: There is no such file, or it isn't of numbers by epoch.
    """
    if isinstance(history, (str, os.PathLike)):
        if not os.path.isfile(history):
            raise ArgumentError(f"history={os.fspath(history)!r} is no file: name a CSV log, or give records by epoch.")
        with open(history, newline="", encoding="utf-8") as stream:
            history = list(csv.DictReader(stream))
    elif isinstance(history, Mapping):
        history = [dict(zip(history, row, strict=True)) for row in zip(*history.values(), strict=True)]
    return [{"epoch": i} | _numbers(record) for i, record in enumerate(history, 1)]


def _numbers(record):
    found = {}
    for name, value in record.items():
        try:
            number = float(value)
        except (TypeError, ValueError):  # what isn't measured in each epoch, and words
            continue
        if math.isfinite(number):
            found[str(name)] = number
    return found
