"""`mobilenet-zoo` imports no framework for commands without a model and hides the frameworks' log messages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mobilenet_zoo
from mobilenet_cli import constants
from mobilenet_cli.quiet import quiet
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo import names
from mobilenet_zoo.figures import table
from mobilenet_zoo.training.recipes import list_recipes
from tests.evaluation import made
from tests.training import tiny

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("keras", "tensorflow", "jax", "jaxlib", "torch", "h5py", "scipy", "pandas")
BLOCKED = f"""if True:
    import importlib.abc, sys

    class Blocker(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {HEAVY}:
                raise ImportError(f"{{name}} is blocked")

    sys.meta_path.insert(0, Blocker())
"""


def child(program, *arguments, code=0, **variables):
    """Run Python in a child process without KERAS_BACKEND; return its standard output and standard error."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KERAS_", "TF_CPP"))}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    result = subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=300)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout, result.stderr


class TestWithoutKeras:
    def test_commands_without_model_import_no_framework(self, tmp_path):
        """One process runs all these commands, and none of them may import the heavy modules."""
        program = f"""{BLOCKED}
    from mobilenet_cli.commands import app

    names = [command.name for command in app.registered_commands]
    commands = [["--help"], ["--version"], *([name, "--help"] for name in names)]
    commands += [["list"], ["list", "v4"], ["list", "--architectures"], ["info", "mobilenetv2_100"]]
    commands += [["info", "tf_mobilenetv3_large_100.in1k"], ["train", "--recipes"], ["plot", "-o", sys.argv[1]]]
    for command in commands:
        try:
            app(command)
        except SystemExit as end:
            assert end.code == 0, (command, end.code)
    assert not {{name.partition(".")[0] for name in sys.modules}} & {{*{HEAVY}, "mobilenet_zoo", "mobilenet_v4"}}
"""
        output, errors = child(program, tmp_path / "zoo.png")
        assert errors == "" and (tmp_path / "zoo.svg").exists()
        assert "mobilenetv4_conv_small_050.e3000_r224_in1k" in output and "scratch_small" in output

    def test_constants_match_packages(self):
        program = f"""{BLOCKED}
    import json
    from mobilenet_cli import constants

    print(json.dumps([
        {{name: repr(weight) for name, weight in constants.weights().items()}},
        {{name: repr(entry) for name, entry in constants.registry().items()}},
        [[*key, *value] for key, value in constants.figures().items()],
        constants.recipes(),
    ]))
"""
        weights, registry, figures, recipes = json.loads(child(program)[0])
        assert weights == {name: repr(weight) for name, weight in names.WEIGHTS.items()}
        assert registry == {name: repr(entry) for name, entry in names.registry().items()}
        assert figures == [[*key, *value] for key, value in table().items()]
        assert recipes == list_recipes()

    def test_packages_work_after_constants_are_imported(self):
        """Packages still register their layers if `constants` was imported before them."""
        program = """if True:
            import sys
            from mobilenet_cli import constants
            before = constants.weights()
            assert not any(name.startswith("mobilenet_v") for name in sys.modules)
            import mobilenet_zoo, mobilenet_v4, keras
            assert mobilenet_v4.architectures.VARIANTS is mobilenet_v4.VARIANTS
            assert mobilenet_zoo.registry.WEIGHTS == before
            assert keras.saving.get_registered_object("mobilenet>ConvNormActivation") is not None
            assert len(mobilenet_zoo.list_models("*v4*")) > 5
        """
        child(program, KERAS_BACKEND="torch")

    def test_constants_use_imported_modules(self):
        assert constants._module("mobilenet_zoo.names") is names


LOGGING = """if True:
    import logging, os, subprocess, sys, warnings
    import typer
    from mobilenet_cli.output import messages, report_errors
    from mobilenet_cli.quiet import quiet
    from mobilenet_common.errors import ArgumentError
    from mobilenet_common.notices import warn

    class FrameworkError(ValueError):
        __module__ = "tensorflow.errors"

    def command(kind: str):
        os.write(2, b"from C++\\n")
        subprocess.run([sys.executable, "-c", "import sys; print('from a child', file=sys.stderr)"], check=True)
        logging.getLogger("absl").warning("from %s", "absl")
        logging.basicConfig(stream=sys.stdout)
        logging.getLogger("nncf").error("from nncf")
        warnings.warn_explicit("from Python", UserWarning, "/elsewhere/torch/a.py", 3)
        warn("our own")
        messages.print("our message")
        if kind == "framework":
            raise FrameworkError("it broke")
        if kind == "caused":
            raise ArgumentError("it can't be read") from FrameworkError("it broke")
        if kind == "unexpected":
            raise KeyError("a bug")
        if kind == "argument":
            raise ArgumentError("--top=0 is not allowed.")
        if kind == "died":
            os.abort()
        print(os.environ.get("TF_CPP_MIN_LOG_LEVEL"))

    typer.run(report_errors(quiet(command)))
"""
CLI_MESSAGES = ["Warning: our own", "our message"]
FRAMEWORK_MESSAGES = [
    "Messages from the frameworks:",
    "from C++",
    "from a child",
    "WARNING:absl: from absl",
    "ERROR:nncf: from nncf",
]


class TestFrameworkMessages:
    def run_logging_program(self, *arguments, code=0, **variables):
        output, errors = child(LOGGING, *arguments, code=code, **variables)
        return output, errors.splitlines()

    def test_messages_are_hidden_on_success(self):
        assert self.run_logging_program("well") == ("None\n", CLI_MESSAGES)

    def test_program_without_standard_error(self, monkeypatch):
        """A Windows program without a console has no standard error."""
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
        monkeypatch.setattr(sys, "stderr", None)
        assert quiet(lambda: os.fstat(2).st_ino)() == os.fstat(2).st_ino, "standard error must not be redirected"

    def test_argument_error_hides_messages(self):
        output, errors = self.run_logging_program("argument", code=2)
        assert (output, errors) == ("", [*CLI_MESSAGES, "Error: --top=0 is not allowed."])

    def test_error_caused_by_framework_shows_messages(self):
        output, errors = self.run_logging_program("caused", code=2)
        assert output == "" and errors[:2] == CLI_MESSAGES
        assert errors[2:7] == FRAMEWORK_MESSAGES and "UserWarning: from Python" in errors[7]
        assert errors[-1] == "Error: it can't be read"

    def test_framework_error_shows_messages_and_traceback(self):
        _, errors = self.run_logging_program("framework", code=1)
        assert errors[2:7] == FRAMEWORK_MESSAGES and errors[-1].endswith("FrameworkError: it broke")

    def test_unexpected_error_shows_messages_before_traceback(self):
        _, errors = self.run_logging_program("unexpected", code=1)
        assert errors[2:7] == FRAMEWORK_MESSAGES and errors[-1] == "KeyError: 'a bug'"

    @pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
    def test_aborted_process_shows_messages(self):
        _, errors = self.run_logging_program("died", code=-6)
        assert set(FRAMEWORK_MESSAGES) <= set(errors)

    @pytest.mark.parametrize("level, shown", [("1", True), ("2", False)])
    def test_tensorflow_log_level_shows_messages(self, level, shown):
        output, errors = self.run_logging_program("well", TF_CPP_MIN_LOG_LEVEL=level)
        assert ("from C++" in errors) == shown and f"{level}\n" in output


REAL_COMMANDS = {
    "predict": "predict photos -m model",
    "features": "features photos -m model -o f.npz",
    "explain": "explain photos/elm/03.png -m model -o h.png",
    "evaluate": "evaluate model photos",
    "convert": "convert model.keras w.safetensors --to timm",
    "train": "train photos -m model -r tiny.yaml -o run",
    "export": "export model a.onnx a.tflite a.xml a.pt2 saved",
    "integers": "export model q.onnx q.tflite q.xml --quantize int8 --calibrate photos",
    "bench": "bench a.onnx a.tflite a.xml a.pt2 saved --rounds 1 --runs 1",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small model of five classes, images and a recipe."""
    path = tmp_path_factory.mktemp("real")
    model = create_mobilenetv4(tiny.TINY, 5, (32, 32, 3), name="tiny")
    mobilenet_zoo.save_pretrained(model, path / "model", class_names=made.NAMES)
    model.save(path / "model.keras")
    made.folder(path / "photos", count=15)
    (path / "tiny.yaml").write_text(tiny.recipe(epochs=1, head_epochs=0).to_yaml())
    return path


@pytest.mark.parametrize(
    "backend, command",
    [
        pytest.param(
            backend, command, marks=[] if (backend, command) == ("tensorflow", "predict") else pytest.mark.slow
        )
        for backend in ("tensorflow", "jax", "torch")
        for command in REAL_COMMANDS
    ],
)
def test_commands_print_no_framework_messages(backend, command, folder, monkeypatch):
    """TensorFlow prints eight lines on import. `bench` measures the files that `export` wrote."""
    if command == "bench" and not (folder / "saved").exists():
        pytest.skip("export did not run")
    if command == "train" and (folder / "run").exists():
        (folder / "run").rename(folder / f"run_before_{backend}")
    monkeypatch.chdir(folder)
    output, errors = child(
        "from mobilenet_cli import main; main()", *REAL_COMMANDS[command].split(), KERAS_BACKEND=backend
    )
    assert output and not errors.strip()
