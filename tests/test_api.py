"""The public API: its names and signatures equal those in `api.txt`.

After an intended change, `KERAS_BACKEND=torch python -m tests.test_api` updates that file.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.across

SURFACE = Path(__file__).with_name("api.txt")
MODULES = (
    "mobilenet_common",
    "mobilenet_common.layers",
    "mobilenet_runtime",
    "mobilenet_runtime.evaluation",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3",
    "mobilenet_v4",
    "mobilenet_zoo",
    "mobilenet_zoo.evaluation",
    "mobilenet_zoo.training",
)
GENERATIONS = (1, 2, 3, 4)


def signature(value):
    try:
        return re.sub(r"\bkeras\.src\.[\w.]*\.(\w+)", r"keras.\1", str(inspect.signature(value)))
    except (TypeError, ValueError):  # built-in classes have no signature
        return "(...)"


def lines_of(name, value):
    """Yield a function's signature, or a class's signature and those of the public methods that it defines."""
    if not inspect.isclass(value):
        yield name + (signature(value) if callable(value) else f": {type(value).__name__}")
        return
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    yield f"{name}{signature(value)}" + (f" is a {bases}" if bases else "")
    fields = {field.name for field in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else set()
    for key, member in sorted(vars(value).items()):
        if key.startswith("_") or key in fields:
            continue
        if isinstance(member, (staticmethod, classmethod)):
            member = member.__func__
        yield f"{name}.{key}" + (signature(member) if inspect.isfunction(member) else "")


def surface():
    """Yield a line for each public function, class, method and value."""
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in sorted(module.__all__):
            yield from lines_of(f"{module_name}.{name}", getattr(module, name))


def test_public_api_equals_the_recorded_one():
    assert list(surface()) == SURFACE.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("package_name", MODULES)
def test_public_names_do_not_hide_submodules(package_name):
    package = importlib.import_module(package_name)
    modules = [module.name for module in pkgutil.iter_modules(package.__path__)]
    hidden = [name for name in modules if not inspect.ismodule(getattr(package, name, package))]
    assert not hidden


def functions_of(value):
    """Return a function itself, or a class's constructor, public methods and properties, including inherited ones."""
    if not inspect.isclass(value):
        return [value] if inspect.isfunction(value) else []
    functions = []
    for base in value.__mro__:
        if not base.__module__.startswith("mobilenet"):
            continue
        for name, member in vars(base).items():
            member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if inspect.isfunction(member) and (not name.startswith("_") or name in ("__init__", "__call__")):
                functions.append(member)
    return functions


def test_public_functions_are_annotated():
    missing = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for function in (function for name in module.__all__ for function in functions_of(getattr(module, name))):
            function = inspect.unwrap(function)
            if not function.__module__.startswith("mobilenet"):  # a dataclass's generated constructor
                continue
            parameters = inspect.signature(function).parameters.values()
            untyped = [
                parameter.name
                for parameter in parameters
                if parameter.annotation is parameter.empty and parameter.name != "self"
            ]
            if (
                function.__name__ != "__init__"
                and inspect.signature(function).return_annotation is inspect.Signature.empty
            ):
                untyped.append("return")
            if set(untyped) - {"cls"}:
                missing.append(f"{function.__module__}.{function.__qualname__}: {', '.join(untyped)}")
    assert not missing, "\n".join(sorted(set(missing)))


@pytest.mark.parametrize("generation", GENERATIONS[1:])
def test_create_functions_differ_only_in_the_default_variant(generation):
    first, other = (
        getattr(importlib.import_module(f"mobilenet_v{number}"), f"create_mobilenetv{number}")
        for number in (GENERATIONS[0], generation)
    )
    first_parameters, parameters = (inspect.signature(function).parameters.values() for function in (first, other))
    assert [parameter.replace(default=None) for parameter in first_parameters] == [
        parameter.replace(default=None) for parameter in parameters
    ]
    assert [parameter.default for parameter in first_parameters][1:] == [p.default for p in parameters][1:]
    heading = "\n    Args:\n"
    assert first.__doc__.partition(heading)[2] == other.__doc__.partition(heading)[2] != ""


if __name__ == "__main__":
    SURFACE.write_text("".join(line + "\n" for line in surface()), encoding="utf-8")
