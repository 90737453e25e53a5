"""The library's constants, read without Keras: names, architectures, published weights, figures and recipes.

The constants are in packages whose `__init__` imports Keras to register the layers that saved models need. The modules
with the constants don't need Keras, so they are imported here without the `__init__` of their packages.
"""

import contextlib
import functools
import importlib
import importlib.util
import sys

_PACKAGES = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "mobilenet_v4", "mobilenet_zoo", "mobilenet_zoo.training")


def weights():
    """Return `{name: Checkpoint}` of all published weights."""
    return _module("mobilenet_zoo.names").WEIGHTS


def registry():
    """Return `{name: Entry}` of every model that can be built."""
    return _module("mobilenet_zoo.names").registry()


def matching(names, pattern):
    """Return the names that match a pattern; see `mobilenet_zoo.names.matching`."""
    return _module("mobilenet_zoo.names").matching(names, pattern)


def check_model(argument: str, name: str) -> None:
    """Raise a `ValueError` for a name that no model can have; see `mobilenet_zoo.names.check_model`."""
    _module("mobilenet_zoo.names").check_model(argument, name)


def figures():
    """Return `{(name, size): Figures}`: the parameters and multiply-accumulates of each model and image size."""
    return _module("mobilenet_zoo.figures").table()


def recipes():
    """Return `{name: one-line summary}` of the library's recipes."""
    return _module("mobilenet_zoo.training.recipes").list_recipes()


def recipe_fields():
    """Return the names of all recipe fields; nested fields have names such as `optimizer.learning_rate`."""
    return [path for path, _ in _module("mobilenet_zoo.training.recipes.recipe").parts()]


@functools.cache
def _module(name):
    with _without_init():
        return importlib.import_module(name)


@contextlib.contextmanager
def _without_init():
    """Put empty modules in place of packages that are not imported yet, and restore `sys.modules` afterward."""
    before = set(sys.modules)
    try:
        for package in _PACKAGES:
            if package not in sys.modules:
                spec = importlib.util.find_spec(package)
                if spec is not None:  # The module has the package's path but isn't executed.
                    sys.modules[package] = importlib.util.module_from_spec(spec)
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in _PACKAGES:
                del sys.modules[name]
