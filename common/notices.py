"""Warnings that point at the caller's own line, and that can be given only once."""

import inspect
import threading
import warnings
import weakref
from typing import Any

from mobilenet_common.errors import MobileNetWarning

_OURS = {"common", "runtime", "zoo", "cli", "v1", "v2", "v3", "v4"}  # behind `mobilenet_`
_BETWEEN = {"functools", "contextlib"}  # which call back into this library
_GIVEN, _ONE_AT_A_TIME = weakref.WeakKeyDictionary(), threading.Lock()


def warn(message: str) -> None:
    """Give a `MobileNetWarning` at the line outside of this library that called into it."""
    here = inspect.currentframe()
    frame, level = here and here.f_back, 2
    while frame is not None and frame.f_back is not None and _is_ours(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, MobileNetWarning, stacklevel=level)


def warn_once(owner: Any, message: str, kind: Any = None) -> None:
    """Give a warning, but one of a kind only once as long as `owner` lives, whatever the filters of warnings are.

    Without a `kind` the message is one of its own.
    """
    with _ONE_AT_A_TIME:
        given = _GIVEN.setdefault(owner, set())
        is_new = (kind or message) not in given
        given.add(kind or message)
    if is_new:
        warn(message)


def _is_ours(frame):
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    prefix, _, rest = package.partition("_")
    return package in _BETWEEN or (prefix == "mobilenet" and rest in _OURS)
