"""The public surface: names and signatures change on purpose only.

`KERAS_BACKEND=torch python -m tests.test_api` writes it down again.
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
    except (TypeError, ValueError):  # a class of Python's own
        return "(...)"


def lines_of(name, value):
    """A function's signature; a class's own and those of the public methods that it defines."""
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
    """A line for each public function, class, method and value."""
    for module in MODULES:
        found = importlib.import_module(module)
        for name in sorted(found.__all__):
            yield from lines_of(f"{module}.{name}", getattr(found, name))


def test_the_surface_is_the_one_written_down():
    assert list(surface()) == SURFACE.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("package", MODULES)
def test_no_name_hides_the_module_that_it_lives_in(package):
    found = importlib.import_module(package)
    modules = [module.name for module in pkgutil.iter_modules(found.__path__)]
    hidden = [name for name in modules if not inspect.ismodule(getattr(found, name, found))]
    assert not hidden


def functions_of(value):
    """A function; of a class its constructor, public methods and properties, those of its own bases too."""
    if not inspect.isclass(value):
        return [value] if inspect.isfunction(value) else []
    found = []
    for owner in value.__mro__:
        if not owner.__module__.startswith("mobilenet"):
            continue
        for name, member in vars(owner).items():
            member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if inspect.isfunction(member) and (not name.startswith("_") or name in ("__init__", "__call__")):
                found.append(member)
    return found


def test_everything_public_has_types():
    missing = []
    for module in MODULES:
        found = importlib.import_module(module)
        for function in (function for name in found.__all__ for function in functions_of(getattr(found, name))):
            function = inspect.unwrap(function)
            if not function.__module__.startswith("mobilenet"):  # a dataclass's own constructor, made from its fields
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
def test_the_create_functions_differ_in_the_default_variant_alone(generation):
    first, other = (
        getattr(importlib.import_module(f"mobilenet_v{number}"), f"create_mobilenetv{number}")
        for number in (GENERATIONS[0], generation)
    )
    theirs, ours = (inspect.signature(function).parameters.values() for function in (first, other))
    assert [parameter.replace(default=None) for parameter in theirs] == [
        parameter.replace(default=None) for parameter in ours
    ]
    assert [parameter.default for parameter in theirs][1:] == [parameter.default for parameter in ours][1:]
    start = "\n    Args:\n"
    assert first.__doc__.partition(start)[2] == other.__doc__.partition(start)[2] != ""


if __name__ == "__main__":
    SURFACE.write_text("".join(line + "\n" for line in surface()), encoding="utf-8")
