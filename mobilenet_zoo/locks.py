"""A lock for each model, for what Keras doesn't let several threads do with one model at once."""

import threading
import weakref

_LOCKS, _MAKING = weakref.WeakKeyDictionary(), threading.Lock()


def lock_of(model):
    """Return the lock of a model, which lives as long as the model; its holder may take it again."""
    with _MAKING:
        return _LOCKS.setdefault(model, threading.RLock())
