"""A pool of runtime objects that only one thread may use at a time."""

import contextlib
import os
import threading


class Pool:
    """Lends instances to threads, and creates a new one when all are in use.

    The number of instances grows to the largest number of concurrent calls, but not beyond `limit`; further calls wait.
    Instances don't belong to threads, so short-lived threads leave none behind.

    Args:
        make: Function that returns a new instance.
        limit: Maximum number of instances, at least 1.
    """

    def __init__(self, make, limit):
        self._make, self._slots = make, threading.Semaphore(limit)
        self._free, self._lock = [], threading.Lock()

    @contextlib.contextmanager
    def borrow(self, prefer=None):
        """Lend an instance to the `with` block for its exclusive use.

        Args:
            prefer: Function that takes a free instance and returns whether it is preferred, or None.
        """
        with self._slots:
            instance = self._take(prefer)
            if instance is None:
                instance = self._make()
            yield instance
            with self._lock:  # not reached after an exception, so that a failed instance is not reused
                self._free.append(instance)

    def _take(self, prefer):
        with self._lock:
            for i in reversed(range(len(self._free))):
                if prefer is None or prefer(self._free[i]):
                    return self._free.pop(i)
            return self._free.pop() if self._free else None


def parallel_calls(threads):
    """Return the number of parallel calls that keep all cores busy if each uses `threads` threads (None: 1)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (threads or 1))
