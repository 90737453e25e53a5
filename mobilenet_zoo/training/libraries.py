"""Libraries that only training needs."""

import importlib

from mobilenet_common.errors import ArgumentError, install_hint


def library(name):
    """The module `name`, or an error that says how to install it.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ArgumentError(
            f"Training needs {name.partition('.')[0]}, which can't be imported ({error}): {install_hint('train')}."
        ) from error
