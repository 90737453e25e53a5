"""What a pipeline gives to `fit`: a dataset of Grain's that counts its waiting and takes down damaged images."""

import collections
import time
from typing import Any

import numpy as np

from mobilenet_common.libraries import import_library

grain = import_library("grain", "train", "Training")
_PEEKED = 2  # batches that Keras reads to learn their shapes, before it begins again


class Batches(grain.IterDataset):
    """Batches that can be gone over again, each time from the same step on.

    Attributes:
        kept: `(n,)` int64 indices of the examples that the latest iteration has given so far, in their order: in
            evaluation all but the damaged ones.
    """

    def __init__(self, pipeline, first_step):
        super().__init__(pipeline.dataset(first_step))
        self._pipeline, self._first_step = pipeline, first_step
        self._given = []
        self._latest = None

    def __iter__(self):
        earlier, self._given = self._latest, []
        self._latest = _Iterator(self._pipeline, self._first_step, self._given)
        if earlier is not None:
            earlier.hand_over(self._latest)
        return self._latest

    @property
    def kept(self):
        return np.concatenate([np.zeros(0, "int64"), *self._given])


class _Iterator(grain.DatasetIterator):
    """Opens its reader when first asked; gives it away to the next iteration if it is dropped after a look.

    Else Keras would start all worker processes twice.
    """

    def __init__(self, pipeline, first_step, given):
        super().__init__()
        self._pipeline, self._step, self._given = pipeline, first_step, given
        self._reader, self._read, self._again = None, [], collections.deque()

    def __next__(self):
        start, batch, made = time.perf_counter(), None, {}
        try:
            while batch is None:  # all images of an evaluation's batch may be damaged
                made = self._again.popleft() if self._again else self._made()
                self._step += 1
                self._pipeline.note(made["damaged"])
                batch = made["batch"]
        finally:
            self._pipeline.waited_s += time.perf_counter() - start
        self._given.append(np.array(made["indices"]))
        # Workers' arrays lie in shared memory: views of NumPy's own type keep it alive and are known to every backend.
        return tuple(array.view(np.ndarray) for array in batch)

    def _made(self):
        if self._reader is None:
            self._reader = iter(self._pipeline.dataset(self._step))
        made = next(self._reader)
        if self._read is not None:
            self._read = [*self._read, made] if len(self._read) < _PEEKED else None
        return made

    def hand_over(self, later):
        """Let a later iteration go on with what this one has started; this one would start anew."""
        if self._read is not None:
            later._again, later._read = collections.deque(self._read), list(self._read)
            later._reader, self._reader, self._read = self._reader, None, None

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
        self._reader, self._read, self._again = None, None, collections.deque()
