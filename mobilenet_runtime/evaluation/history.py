"""Read the training history of a run: losses and metrics by epoch."""

import csv
import math
import os
from collections.abc import Mapping

from mobilenet_common.errors import ArgumentError


def read_history(history):
    """Return one record of numbers per epoch.

    Args:
        history: One record per epoch, `[{"loss": 0.5, ...}]`; a dictionary of lists, `{"loss": [0.5, ...]}`, as in the
            attribute `history` of Keras's `History`; or the path of a CSV log as written by Keras's `CSVLogger`.

    Returns:
        A list of dictionaries `{name: number}`. Each has the key `epoch`, which counts from 1 if the history has no
        epochs. Values that are not finite numbers are left out.

    Raises:
        ValueError: If the file doesn't exist, or if the lists differ in length.
    """
    if isinstance(history, (str, os.PathLike)):
        if not os.path.isfile(history):
            raise ArgumentError(
                f"history={os.fspath(history)!r} is not a file: pass the path of a CSV log, or one record per epoch."
            )
        with open(history, newline="", encoding="utf-8") as stream:
            history = list(csv.DictReader(stream))
    elif isinstance(history, Mapping):
        history = [dict(zip(history, row, strict=True)) for row in zip(*history.values(), strict=True)]
    return [{"epoch": i} | _numbers(record) for i, record in enumerate(history, 1)]


def _numbers(record):
    numbers = {}
    for name, value in record.items():
        try:
            number = float(value)
        except (TypeError, ValueError):  # text, or a metric that is not measured in every epoch
            continue
        if math.isfinite(number):
            numbers[str(name)] = number
    return numbers
