"""One-line warnings, at the user's own line."""

import inspect
import warnings


def notify(message):
    """Warn of something that was chosen, left out or made fresh, at the line outside this library that asked for it."""
    frame, level = inspect.currentframe().f_back, 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("mobilenet_"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)
