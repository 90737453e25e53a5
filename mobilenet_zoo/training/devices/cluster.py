"""A process of a training run, and its communication with the other processes."""

import contextlib
import json

import numpy as np

from mobilenet_common.errors import ArgumentError, integer


class Agreed(Exception):
    """Raised in all processes of a run at the same step to end it; the processes then wait for each other to exit."""


class Cluster:
    """A process of a training run on one device. Each backend has a subclass for several devices.

    Attributes:
        process_index: Index of this process, from 0.
        process_count: Number of processes of the run, on all hosts.
        devices: Number of devices of the run, in all processes.
        computes_alone: Whether a process can use the model without the other processes.
    """

    computes_alone = True

    def __init__(self, process_index=0, process_count=1, devices=1):
        self.process_index = process_index
        self.process_count = process_count
        self.devices = devices

    @property
    def is_chief(self):
        """Whether this process writes files and prints."""
        return self.process_index == 0

    def share(self, batch_size):
        """Return the number of images that this process contributes to each global batch.

        Args:
            batch_size: Number of images in a global batch.

        Raises:
            ValueError: The devices can't split the batch equally.
        """
        if integer("batch_size", batch_size, 1) % self.devices:
            below = batch_size - batch_size % self.devices
            allowed = f"{below} or {below + self.devices}" if below else str(self.devices)
            raise ArgumentError(
                f"batch_size={batch_size} is not allowed: it must be a multiple of the number of devices "
                f"({self.devices}), such as {allowed}."
            )
        return batch_size // self.process_count

    def scope(self):
        """Return the context in which a model is created and compiled."""
        return contextlib.nullcontext()

    def prepare(self, model):
        """Prepare a compiled model so that `fit` and `evaluate` run across all devices.

        Every process must call it after `compile` (each time) and after restoring weights. The weights, the optimizer
        state and the random state of the first process are copied to all processes.
        """

    def feed(self, batches):
        """Return the data for `fit` and `evaluate`, made from the batches of this process.

        The batches are read once, so a resumed run continues at their current position. `fit` needs `steps_per_epoch`.

        Args:
            batches: Iterable of tuples of NumPy arrays.
        """
        return batches

    def gather(self, value):
        """Return the JSON-serializable `value` of every process, in the order of the processes. All must call it."""
        return [value]

    def barrier(self):
        """Wait until every process has called this method."""
        self.gather(None)

    def broadcast_value(self, value=None):
        """Return the `value` of the first process in every process."""
        return self.gather(value)[0]

    def any(self, flag):
        """Return whether `flag` is true in any process, for example to stop all processes at the same step."""
        return any(self.gather(bool(flag)))

    def all_equal(self, value):
        """Return whether `value` is the same in every process."""
        values = self.gather(value)
        return all(other == values[0] for other in values)

    def close(self, failed=False):
        """Leave the run; a process that `failed` doesn't wait for the others."""


def exchange(value, gather_rows):
    """Return the values of all processes, using a collective operation on arrays; implements `Cluster.gather`.

    Args:
        value: JSON-serializable value of this process.
        gather_rows: Function that takes an int32 array `(n,)`, with the same n in every process, and returns the arrays
            of all processes, `(processes, n)`.
    """
    encoded = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int32)
    lengths = np.asarray(gather_rows(np.array([encoded.size], np.int32)))[:, 0]
    rows = np.asarray(gather_rows(np.pad(encoded, (0, lengths.max() - encoded.size))))
    return [
        json.loads(row[:length].astype(np.uint8).tobytes().decode()) for row, length in zip(rows, lengths, strict=True)
    ]
