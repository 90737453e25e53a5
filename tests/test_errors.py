"""All errors of the library share a base class, and commands report them without a traceback."""

import ast
import builtins
import inspect
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import mobilenet_common.errors
import mobilenet_runtime
import mobilenet_zoo
import mobilenet_zoo.training
from mobilenet_cli.output import report_errors
from mobilenet_zoo import MobileNetError

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "common",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3",
    "mobilenet_v4",
    "mobilenet_zoo",
    "mobilenet_runtime",
)
# Python's protocols require these errors: `__getattr__`, indexing, and a subclass that lacks a method.
PROTOCOLS = {
    ("common/__init__.py", "AttributeError"),
    ("common/layers/block.py", "TypeError"),
    ("mobilenet_runtime/examples/examples.py", "IndexError"),
}


def public_errors():
    modules = (mobilenet_common.errors, mobilenet_runtime, mobilenet_zoo, mobilenet_zoo.training)
    classes = {value for module in modules for value in vars(module).values() if inspect.isclass(value)}
    return sorted((kind for kind in classes if issubclass(kind, Exception)), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", public_errors(), ids=lambda kind: kind.__name__)
def test_error_derives_from_the_base_and_a_built_in_error(kind):
    if issubclass(kind, (Warning, mobilenet_zoo.training.Terminated)):
        return
    assert issubclass(kind, MobileNetError)
    assert kind is MobileNetError or issubclass(kind, (ValueError, TypeError, ImportError, OSError))


def built_in_errors(path):
    """Yield `(line, name)` of the built-in errors that a module raises or returns."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        value = getattr(node, "exc" if isinstance(node, ast.Raise) else "value", None)
        if isinstance(node, (ast.Raise, ast.Return)) and isinstance(value, ast.Call):
            name = getattr(value.func, "id", "")
            if name.endswith("Error") and hasattr(builtins, name):
                yield value.lineno, name


def test_packages_raise_no_built_in_errors():
    raised = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, name in built_in_errors(path)
        if (str(path.relative_to(ROOT)), name) not in PROTOCOLS
    ]
    assert raised == []


@pytest.mark.parametrize(
    ("error", "is_reported"),
    [
        (mobilenet_zoo.ArgumentError("size=0 is not allowed."), True),
        (mobilenet_runtime.RuntimeMissing("onnxruntime is not installed."), True),
        (FileNotFoundError(2, "No such file or directory", "cat.jpg"), True),
        (ValueError("too many values to unpack"), False),
        (TypeError("unsupported operand"), False),
        (KeyError("stem"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_command_reports_errors_and_keeps_the_traceback_of_bugs(error, is_reported):
    def command():
        raise error

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(report_errors(command))
    result = CliRunner().invoke(app, [])
    if is_reported:
        assert result.exit_code == 2 and "Error:" in result.stderr
    else:
        assert result.exception is error
