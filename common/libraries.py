"""Libraries that only some users need: imported when first used, and where missing named with what installs them."""

import importlib
import importlib.util
from typing import Any

from mobilenet_common.errors import ArgumentError, install_hint


def import_library(module: str, extra: str, purpose: str, error: type[Exception] = ArgumentError) -> Any:
    """Import and return a module of an optional library.

    Args:
        module: Its dotted name.
        extra: The extra of this project that installs it.
        purpose: What needs it, as the first words of the message, such as `"Training"`.
        error: The class of the exception.

    Raises:
        error: It can't be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as reason:
        package = module.partition(".")[0]
        raise error(f"{purpose} needs {package}, which is not installed ({reason}): {install_hint(extra)}.") from reason


def is_installed(package: str) -> bool:
    """Return whether a package can be found, without importing it."""
    return importlib.util.find_spec(package) is not None
