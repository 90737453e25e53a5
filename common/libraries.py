"""Lazy imports of optional libraries, with errors that say how to install a missing one."""

import importlib
import importlib.util
from typing import Any

from mobilenet_common.errors import ArgumentError, install_hint


def import_library(module: str, extra: str, purpose: str, error: type[Exception] = ArgumentError) -> Any:
    """Import and return a module of an optional library.

    Args:
        module: Dotted name of the module.
        extra: The extra of this project that installs the library.
        purpose: The feature that needs the library, as the first words of the message, such as `"Training"`.
        error: Class of the exception to raise.

    Raises:
        error: If the module can't be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as reason:
        package = module.partition(".")[0]
        raise error(f"{purpose} needs {package}, which is not installed ({reason}): {install_hint(extra)}.") from reason


def is_installed(package: str) -> bool:
    """Return whether a package is installed, without importing it."""
    return importlib.util.find_spec(package) is not None
