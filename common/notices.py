"""Warnings that point to the user's line of code and can be limited to once."""

import inspect
import threading
import warnings
import weakref
from typing import Any

from mobilenet_common.errors import MobileNetWarning

_OWN_PACKAGES = {"common", "runtime", "zoo", "cli", "v1", "v2", "v3", "v4"}  # each after the prefix `mobilenet_`
_WRAPPERS = {"functools", "contextlib"}  # Their frames lie between frames of this library.
_ISSUED, _LOCK = weakref.WeakKeyDictionary(), threading.Lock()


def warn(message: str) -> None:
    """Issue a `MobileNetWarning` that points to the line outside this library that called into it."""
    current = inspect.currentframe()
    frame, level = current and current.f_back, 2
    while frame is not None and frame.f_back is not None and _is_internal(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, MobileNetWarning, stacklevel=level)


def warn_once(owner: Any, message: str, kind: Any = None) -> None:
    """Issue a warning only once per `kind` during the lifetime of `owner`, whatever the warning filters are.

    Args:
        owner: Object that the warning is about; it must support weak references.
        message: Text of the warning.
        kind: Hashable key that identifies repeated warnings; None uses the message.
    """
    with _LOCK:
        issued = _ISSUED.setdefault(owner, set())
        is_new = (kind or message) not in issued
        issued.add(kind or message)
    if is_new:
        warn(message)


def _is_internal(frame):
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    prefix, _, rest = package.partition("_")
    return package in _WRAPPERS or (prefix == "mobilenet" and rest in _OWN_PACKAGES)
