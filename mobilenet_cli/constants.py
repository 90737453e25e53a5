"""The constants of the library, read without Keras: names, architectures, published weights, figures, recipes.

They live in packages whose `__init__` imports Keras, because it registers the layers that saved models need. A module
of constants needs nothing of that, so it is imported here without its package's `__init__`.
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
    """Return the names that fit a pattern; see `mobilenet_zoo.names.matching`."""
    return _module("mobilenet_zoo.names").matching(names, pattern)


def check_model(argument: str, name: str) -> None:
    """Raise the `ValueError` for a name that no model can have; see `mobilenet_zoo.names.check_model`."""
    _module("mobilenet_zoo.names").check_model(argument, name)


def figures():
    """Return `{(name, size): Figures}`: the parameters and multiply-accumulates of each model."""
    return _module("mobilenet_zoo.figures").table()


def recipes():
    """Return `{name: one-line summary}` of the recipes of the library."""
    return _module("mobilenet_zoo.training.recipes").list_recipes()


def recipe_fields():
    """Return the names of all fields of a recipe, those of parts as `optimizer.learning_rate`."""
    return [path for path, _ in _module("mobilenet_zoo.training.recipes.recipe").parts()]


@functools.cache
def _module(name):
    with _without_init():
        return importlib.import_module(name)


@contextlib.contextmanager
def _without_init():
    """Stand empty packages in for those that are not imported yet, and leave `sys.modules` as it was."""
    before = set(sys.modules)
    try:
        for package in _PACKAGES:
            if package not in sys.modules:
                spec = importlib.util.find_spec(package)
                if spec is not None:  # The module has the path of the package but is not executed.
                    sys.modules[package] = importlib.util.module_from_spec(spec)
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in _PACKAGES:
                del sys.modules[name]
