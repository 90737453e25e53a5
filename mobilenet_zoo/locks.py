"""A lock for each MobileNet, for what Keras doesn't let several threads do with one model at once."""

import threading
import weakref

from mobilenet_common.nesting import stem_of

_LOCKS, _MAKING = weakref.WeakKeyDictionary(), threading.Lock()


def lock_of(model):
    """Return the lock of a model, which its holder may take again.

    Models that share a stem share layers, and have one lock. It lives as long as the stem, or a model without one.
    """
    stem = stem_of(model)
    with _MAKING:
        return _LOCKS.setdefault(model if stem is None else stem, threading.RLock())
