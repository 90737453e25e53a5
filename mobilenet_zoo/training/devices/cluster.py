"""One process of a run, and what it asks of the others."""

import contextlib
import json

import numpy as np

from mobilenet_common.errors import ArgumentError, integer


class Agreed(Exception):
    """Ends a run in all of its processes at the same step: they wait for each other on the way out."""


class Cluster:
    """One process of a run, on one device; each backend has a subclass for several.

    Attributes:
        process_index: Of this process, from 0.
        process_count: Processes of the run, on all hosts.
        devices: Devices of the run, in all processes.
        computes_alone: Whether a process may use the model while the others don't.
    """

    computes_alone = True

    def __init__(self, process_index=0, process_count=1, devices=1):
        self.process_index = process_index
        self.process_count = process_count
        self.devices = devices

    @property
    def is_chief(self):
        """Whether this is the process that writes files and prints."""
        return self.process_index == 0

    def share(self, batch_size):
        """Return how many images of each global batch this process feeds.

        Args:
            batch_size: Images of a global batch.

        Raises:
            ValueError: The devices can't have equal parts of it.
        """
        if integer("batch_size", batch_size, 1) % self.devices:
            below = batch_size - batch_size % self.devices
            allowed = f"{below} or {below + self.devices}" if below else str(self.devices)
            raise ArgumentError(
                f"batch_size={batch_size} can't be divided among {self.devices} devices: take a multiple, "
                f"such as {allowed}."
            )
        return batch_size // self.process_count

    def scope(self):
        """Return where a model is made and compiled."""
        return contextlib.nullcontext()

    def prepare(self, model):
        """Make `fit` and `evaluate` of a compiled model work together with the other devices.

        Every process calls it, after compiling (again after compiling anew) and after weights were restored: the first
        process's weights, optimizer and random state go to all.
        """

    def feed(self, batches):
        """Return what `fit` and `evaluate` take in place of this process's `batches`, tuples of NumPy arrays.

        They are read once, so that a run goes on where they stand. `fit` needs `steps_per_epoch`.
        """
        return batches

    def gather(self, value):
        """Return the `value` of every process, in order; what JSON can hold. Every process has to call it."""
        return [value]

    def barrier(self):
        """Return when every process has called it."""
        self.gather(None)

    def broadcast_value(self, value=None):
        """Return the first process's `value`, on every process."""
        return self.gather(value)[0]

    def any(self, flag):
        """Return whether `flag` is true on any process: to stop all of them at the same step."""
        return any(self.gather(bool(flag)))

    def all_equal(self, value):
        """Return whether every process has the same `value`."""
        values = self.gather(value)
        return all(other == values[0] for other in values)

    def close(self, failed=False):
        """Leave the run, without waiting for the others where this process `failed`."""


def exchange(value, gather_rows):
    """Return `Cluster.gather` by a collective of arrays.

    Args:
        value: What JSON can hold.
        gather_rows: Takes an int32 array `(n,)`, as long on every process, and gives `(processes, n)`.
    """
    own = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int32)
    lengths = np.asarray(gather_rows(np.array([own.size], np.int32)))[:, 0]
    rows = np.asarray(gather_rows(np.pad(own, (0, lengths.max() - own.size))))
    return [
        json.loads(row[:length].astype(np.uint8).tobytes().decode()) for row, length in zip(rows, lengths, strict=True)
    ]
