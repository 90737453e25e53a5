"""The batches that `fit` receives: a Grain dataset that measures waiting times and records damaged images."""

import collections
import time
from typing import Any

import numpy as np

from mobilenet_common.libraries import import_library

grain = import_library("grain", "train", "Training")
_PEEKED_BATCHES = 2  # Number of batches that Keras reads to determine their shapes, before it starts over.


class Batches(grain.IterDataset):
    """Batches that can be iterated repeatedly, each time from the same first step.

    Attributes:
        kept: `(n,)` int64 indices of the examples that the latest iteration has yielded so far, in their order. In
            evaluation, these are all examples except the damaged ones.
    """

    def __init__(self, pipeline, first_step):
        super().__init__(pipeline.dataset(first_step))
        self._pipeline, self._first_step = pipeline, first_step
        self._yielded_indices = []
        self._latest = None

    def __iter__(self):
        previous, self._yielded_indices = self._latest, []
        self._latest = _Iterator(self._pipeline, self._first_step, self._yielded_indices)
        if previous is not None:
            previous.hand_over(self._latest)
        return self._latest

    @property
    def kept(self):
        return np.concatenate([np.zeros(0, "int64"), *self._yielded_indices])


class _Iterator(grain.DatasetIterator):
    """Iterator that opens its reader on first use, and can hand the reader over to the next iterator.

    Keras peeks at the first batches and then starts a new iteration, which would otherwise start all workers again.
    """

    def __init__(self, pipeline, first_step, yielded_indices):
        super().__init__()
        self._pipeline, self._step, self._yielded_indices = pipeline, first_step, yielded_indices
        self._reader, self._first_results, self._pending_results = None, [], collections.deque()

    def __next__(self):
        start, batch, result = time.perf_counter(), None, {}
        try:
            while batch is None:  # In evaluation, all images of a batch may be damaged.
                result = self._pending_results.popleft() if self._pending_results else self._next_result()
                self._step += 1
                self._pipeline.note(result["damaged"])
                batch = result["batch"]
        finally:
            self._pipeline.waited_s += time.perf_counter() - start
        self._yielded_indices.append(np.array(result["indices"]))
        # Workers return arrays in shared memory. NumPy views keep the memory alive, and every backend accepts them.
        return tuple(array.view(np.ndarray) for array in batch)

    def _next_result(self):
        if self._reader is None:
            self._reader = iter(self._pipeline.dataset(self._step))
        result = next(self._reader)
        if self._first_results is not None:
            self._first_results = [*self._first_results, result] if len(self._first_results) < _PEEKED_BATCHES else None
        return result

    def hand_over(self, successor):
        """Hand over the reader and the results read so far to a later iterator, unless more than a peek was read."""
        if self._first_results is not None:
            successor._pending_results, successor._first_results = (
                collections.deque(self._first_results),
                list(self._first_results),
            )
            successor._reader, self._reader, self._first_results = self._reader, None, None

    def get_state(self):
        return {"step": self._step}

    def set_state(self, state: Any) -> None:
        self._drop_reader()
        self._step = state["step"]

    def close(self) -> None:
        super().close()
        self._drop_reader()

    def _drop_reader(self):
        if self._reader is not None:
            self._reader.close()
        self._reader, self._first_results, self._pending_results = None, None, collections.deque()
