"""One lock per model, because Keras doesn't support some operations on a model in several threads at once."""

import threading
import weakref

from mobilenet_common.nesting import stem_of

_LOCKS, _LOCKS_GUARD = weakref.WeakKeyDictionary(), threading.Lock()


def lock_of(model):
    """Return the reentrant lock of a model.

    Models that share a stem share layers, so they share one lock. The lock lives as long as the stem, or, for a model
    without a stem, as long as the model.
    """
    stem = stem_of(model)
    with _LOCKS_GUARD:
        return _LOCKS.setdefault(model if stem is None else stem, threading.RLock())
