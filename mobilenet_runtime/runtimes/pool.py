"""What a runtime runs a file with and only one thread may use at a time, shared by any number of threads."""

import contextlib
import os
import threading


class Pool:
    """Hands out instances to threads, and makes another one when all are in use.

    There are as many instances as calls have run at once, at most `limit`: a thread that comes and goes leaves nothing
    behind. Further calls wait for their turn.

    Args:
        make: A function that returns a new instance.
        limit: How many there may be, at least 1.
    """

    def __init__(self, make, limit):
        self._make, self._slots = make, threading.Semaphore(limit)
        self._free, self._lock = [], threading.Lock()

    @contextlib.contextmanager
    def borrow(self, prefer=None):
        """Give an instance to the `with` block alone.

        Args:
            prefer: A function of an instance that says whether it suits better than others, or None.
        """
        with self._slots:
            instance = self._take(prefer)
            if instance is None:
                instance = self._make()
            yield instance
            with self._lock:  # an instance that failed is not used again
                self._free.append(instance)

    def _take(self, prefer):
        with self._lock:
            for i in reversed(range(len(self._free))):
                if prefer is None or prefer(self._free[i]):
                    return self._free.pop(i)
            return self._free.pop() if self._free else None


def parallel_calls(threads):
    """Return how many calls with `threads` each (None for one) keep the cores of this process busy, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (threads or 1))
