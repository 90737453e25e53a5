"""Common command-line mistakes: the error names the mistake, and no files are left behind."""

import os
import shutil

import numpy as np
import pytest
import typer.main

import mobilenet_zoo
from mobilenet_cli.commands import app
from mobilenet_cli.listing import _loading_lines
from mobilenet_common.errors import DownloadError, unknown_name
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.names import WEIGHTS, registry
from tests import photographs
from tests.test_cli import plain, run
from tests.test_cli_light import child
from tests.training import tiny

pytestmark = pytest.mark.across


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """A folder with a small model of three classes."""
    model = create_mobilenetv4(tiny.TINY, 3, (32, 32, 3), name="flowers")
    return mobilenet_zoo.save_pretrained(model, tmp_path_factory.mktemp("model") / "flowers")


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    """A working folder with a photograph, an empty folder and training data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "1")  # `train` sets it
    photographs.photograph().save("a.png")
    os.mkdir("empty")
    data = tiny.examples(24)
    np.savez("data.npz", x=np.stack(data.images), y=data.labels, class_names=tiny.CLASSES)
    return tmp_path


@pytest.fixture
def no_framework(monkeypatch):
    """Fail if a command imports Keras."""

    def zoo():
        raise AssertionError("Keras must not be imported")

    for module in ("predict", "convert", "evaluate"):
        monkeypatch.setattr(f"mobilenet_cli.{module}.zoo", zoo)
    monkeypatch.setattr("mobilenet_cli.train.choose_backend", zoo)


COMMANDS = {
    "predict": ("predict", "a.png", "-m"),
    "features": ("features", "a.png", "-o", "f.npz", "-m"),
    "explain": ("explain", "a.png", "-o", "h.png", "-m"),
    "evaluate": ("evaluate", "MODEL", "empty"),
    "export": ("export", "MODEL", "a.onnx"),
    "train": ("train", "empty", "-m"),
    "teacher": ("train", "empty", "--teacher"),
    "convert": ("convert", "a.png", "b.keras", "-m"),
}


def with_model(command, name):
    arguments = COMMANDS[command]
    return [name if argument == "MODEL" else argument for argument in arguments] + [name] * ("MODEL" not in arguments)


@pytest.mark.usefixtures("working_folder", "no_framework")
class TestModelNames:
    @pytest.mark.parametrize("command", COMMANDS)
    @pytest.mark.parametrize(
        "name, expected",
        [
            ("mobilenetv4_conv_smal", "mobilenetv4_conv_small"),
            ("MobileNetV2_100", "mobilenetv2_100"),
            ("mobilenetv4_conv_small.e2400_r224", "mobilenetv4_conv_small.e2400_r224_in1k"),
        ],
    )
    def test_misspelled_name_suggests_nearest_name(self, command, name, expected):
        if command == "convert" and "." in name:
            expected = expected.partition(".")[0]
        result = run(*with_model(command, name), code=2)
        message = plain(result.stderr)
        assert (
            name in message and f"'{expected}'" in message and "mobilenet-zoo list" in message and result.stdout == ""
        )
        assert len(message) < 500

    @pytest.mark.parametrize("command", [name for name in COMMANDS if name != "convert"])
    def test_files_that_are_not_models_exit_with_2(self, command):
        message = plain(run(*with_model(command, "absent.keras"), code=2).stderr)
        assert "'absent.keras' does not exist." in message
        open("w.safetensors", "w").close()
        message = plain(run(*with_model(command, "w.safetensors"), code=2).stderr)
        assert "is a file that doesn't describe a model: pass a .keras file" in message


@pytest.mark.usefixtures("working_folder")
def test_parent_or_misspelled_model_folder(flowers, monkeypatch):
    def fail(repository, *_):
        raise DownloadError(f"there is no {repository}", absent=False)

    monkeypatch.setattr("mobilenet_zoo.pretrained.download_from_hub", fail)
    shutil.copytree(flowers, "run/model")
    assert "Did you mean run/model?" in plain(run("predict", "a.png", "-m", "run", code=2).stderr)
    message = plain(run("predict", "a.png", "-m", "run/modell", code=2).stderr)
    assert "Error: run/modell is not a folder, and loading it as a repository failed: there is no run/modell" in message


def test_only_short_lists_of_names_are_printed():
    few, many = [f"name{i}" for i in range(40)], [f"name{i}" for i in range(41)]
    assert str(unknown_name("x", "nam1", few)).endswith(f"Allowed: {', '.join(few)}.")
    message = str(unknown_name("x", "Name1", many, "list()"))
    suggestions = "Did you mean 'name1', 'name31' or 'name21'?"
    assert message == f"x='Name1' is not known. {suggestions} Allowed: 41 names; list all with: list()."
    assert str(unknown_name("x", "?", many)) == (
        "x='?' is not known. Allowed: 41 names, such as 'name0', 'name1' or 'name2'."
    )
    assert "Did you mean 'Crane'" in str(unknown_name("x", "crane", ["Crane", "Stork"]))


class TestList:
    @pytest.mark.parametrize("pattern", ["v4", "V4", "*v4*"])
    def test_word_matches_inside_names(self, pattern):
        lines = run("list", pattern, columns=200).stdout.splitlines()[1:]
        assert [line.split()[0] for line in lines] == sorted(name for name in WEIGHTS if "v4" in name)
        lines = run("list", pattern, "--architectures").stdout.splitlines()[1:]
        assert [line.split()[0] for line in lines] == sorted(name for name in registry() if "v4" in name)

    def test_filters_apply_to_architectures(self):
        arguments = ("list", "--architectures", "-g", "v1", "-g", "v2", "--max-parameters", "3", "--sort", "macs")
        rows = [line.split() for line in run(*arguments).stdout.splitlines()[1:]]
        assert rows and {name[:11] for name, *_ in rows} == {"mobilenetv1", "mobilenetv2"}
        assert all(float(parameters) <= 3 for _, parameters, *_ in rows)
        macs = [float(row[2].replace(",", "")) for row in rows]
        assert macs == sorted(macs)

    @pytest.mark.parametrize(
        "options, match",
        [
            (("--architectures", "--source", "timm"), "--source is for published weights"),
            (("--architectures", "--min-accuracy", "70"), "--min-accuracy is for published weights"),
            (("--architectures", "--sort", "accuracy"), "--sort=accuracy is for published weights"),
            (("--max-macs", "-1"), "--max-macs=-1.0 is not allowed"),
            (("--min-accuracy", "101"), "--min-accuracy=101.0 is not allowed"),
            (("--max-size", "-1"), "--max-size=-1 is not allowed"),
        ],
    )
    def test_wrong_options_exit_with_2(self, options, match):
        assert match in plain(run("list", *options, code=2).stderr)

    @pytest.mark.parametrize("more", [(), ("--architectures",)])
    def test_no_matches_suggest_similar_names(self, more):
        result = run("list", "mobilenetv2_1000", *more)
        assert result.stdout == "" and "Did you mean 'mobilenetv2_100" in plain(result.stderr)


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("name", ["mobilenetv4_conv_small_050.e3000_r224_in1k", "mobilenetv1_100.keras_r224"])
def test_code_of_info_is_not_wrapped(name, columns):
    lines = run("info", name, columns=columns).stdout.splitlines()
    assert set(_loading_lines(name)) <= set(lines)


@pytest.mark.parametrize("command", [command.name for command in app.registered_commands])
def test_help_shows_complete_texts(command):
    output = plain(run(command, "--help", columns=300).output.replace("│", " "))
    for option in typer.main.get_command(app).commands[command].params:
        for word in (option.help or "").replace("`", "").split():
            assert word in output, f"{word} of {option.name}"


@pytest.mark.usefixtures("working_folder")
class TestMissingImages:
    def test_nothing_is_loaded_or_written_if_all_images_are_missing(self, no_framework):
        open("predictions.csv", "w").write("kept")
        for arguments in (
            ("predict", "nosuch.jpg"),
            ("predict", "nosuch.jpg", "empty", "-f", "csv", "-o", "predictions.csv"),
            ("features", "nosuch.jpg", "-o", "f.npz"),
            ("explain", "nosuch.jpg", "-o", "h.png"),
        ):
            result = run(*arguments, code=1)
            assert result.stdout == "" and "nosuch.jpg does not exist." in result.stderr
        assert open("predictions.csv").read() == "kept"
        assert sorted(os.listdir()) == ["a.png", "data.npz", "empty", "predictions.csv"]

    def test_missing_images_are_skipped(self, flowers):
        arguments = ("nosuch.jpg", "empty", "*.gif", "a.png", "-m", str(flowers))
        for command, out in (("predict", ()), ("features", ("-o", "f.npz")), ("explain", ("-o", "heat"))):
            result = run(command, *arguments, *out, code=1)
            for reason in ("nosuch.jpg does not exist.", "empty has no images.", "*.gif matches no file."):
                assert f"skipped: {reason}" in result.stderr
            assert "3 of the images could not be read." in result.stderr
            assert "a.png" in result.stdout or "1 ×" in result.stdout

    def test_only_unreadable_images_exit_with_1(self, flowers):
        open("b.jpg", "w").close()
        result = run("predict", "b.jpg", "-m", str(flowers), code=1)
        assert result.stdout == "" and "b.jpg can't be read" in plain(result.stderr)


@pytest.mark.usefixtures("working_folder")
class TestTrain:
    @pytest.mark.parametrize(
        "options, match",
        [
            (("--set", "epoch=1"), "epochs"),
            (("--recipe", "finetun"), "Error: --recipe='finetun' is not known. Did you mean 'finetune'"),
            (("--weights", "nosuch"), "Error: --weights='nosuch'"),
            (("--validation-fraction", "2"), "Error: --validation-fraction=2"),
            (("--keep", "0"), "Error: --keep=0"),
            (("--workers", "-1"), "Error: --workers=-1"),
            (("--damaged-limit", "-1"), "Error: --damaged-limit=-1"),
            (("--devices", "0"), "Error: --devices=0"),
            (("--checkpoint-seconds", "-1"), "Error: --checkpoint-seconds=-1"),
            (("--teacher", "absent.npz"), "absent.npz"),
        ],
    )
    def test_argument_error_creates_no_folder(self, options, match):
        arguments = ("train", "data.npz", "-m", "mobilenetv4_conv_small_035", "-r", "scratch_small")
        message = plain(run(*arguments, *options, "-o", "new/run", code=2).stderr)
        assert match in message
        assert not os.path.exists("new")

    @pytest.mark.parametrize(
        "options, match",
        [
            (("--epochs", "3"), "It is a recipe field: use --set epochs=3."),
            (("--learning-rate=1e-3",), "It is a recipe field: use --set optimizer.learning_rate=1e-3."),
            (("--batch-size",), "It is a recipe field: use --set batch_size=VALUE."),
            (("--kep", "3"), "--keep"),
        ],
    )
    def test_recipe_field_as_option_suggests_set(self, options, match):
        message = plain(run("train", "data.npz", *options, code=2, columns=200).stderr)
        assert match in message and options[0].partition("=")[0] in message

    @pytest.mark.parametrize("option", ["--model", "--teacher"])
    def test_option_without_value_is_reported(self, option):
        message = plain(run("train", "data.npz", option, code=2, columns=200).stderr)
        assert f"Option '{option}' requires an argument" in message and "recipe field" not in message

    @pytest.mark.parametrize(
        "options, match",
        [
            (("--set", "epoch=1"), "Did you mean 'epochs'"),
            (("--set", "epochs"), "Error: --set 'epochs' is not allowed: write field=value"),
            (("--set", "epochs=1"), "schedule.warmup_epochs=0.5"),
            (("--recipe", "finetun"), "Did you mean 'finetune'"),
            (("--weights", "nosuch"), "--weights='nosuch' is not known"),
            (("--weights", "nosuch.h5"), "nosuch.h5 is not a file"),
            (
                ("--model", "mobilenetv1_100.keras_r224", "--weights", "mobilenetv1_050.keras_r224"),
                "is not published for",
            ),
        ],
    )
    def test_names_are_checked_before_images_are_read(self, options, match, monkeypatch):
        def read_data(*_, **__):
            raise AssertionError("images must not be read")

        monkeypatch.setattr("mobilenet_zoo.training.trainer.read_data", read_data)
        assert match in plain(run("train", "data.npz", *options, code=2).stderr)

    def test_existing_output_folder_is_kept(self):
        os.makedirs("mine/run")
        open("mine/run/notes.txt", "w").close()
        run("train", "data.npz", "-r", "scratch_small", "--weights", "nosuch", "-o", "mine/run", code=2)
        assert os.listdir("mine/run") == ["notes.txt"]
        run("train", "data.npz", "-r", "scratch_small", "--weights", "nosuch", "-o", "empty", code=2)
        assert os.listdir("empty") == []

    def test_missing_data_exits_with_2(self, no_framework):
        assert "DATA='photo' does not exist." in run("train", "photo", "-o", "new", code=2).stderr
        assert "--validation='val' does not exist." in run("train", "data.npz", "--validation", "val", code=2).stderr

    def test_train_prints_one_line_per_epoch(self):
        tiny.model().save("tiny.keras")
        open("tiny.yaml", "w").write(tiny.recipe().to_yaml())
        result = run("train", "data.npz", "-m", "tiny.keras", "-r", "tiny.yaml", "-o", "run")
        lines = result.stdout.splitlines()
        assert [line.split(" · ")[0] for line in lines[:-1]] == [f"epoch {i} of 3" for i in (1, 2, 3)]
        assert lines[-1].startswith("The best epoch is ") and lines[-1].endswith(f"The model is in {'run/model'}.")
        assert result.stderr == ""


@pytest.mark.parametrize("backend, match", [("torhc", "is not supported: set it to"), ("tensorflow", "")])
def test_unavailable_backend_exits_with_1(backend, match):
    program = """if True:
        import importlib.util, sys
        find_spec = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "tensorflow" else find_spec(name, *rest)
        from mobilenet_cli.zoo import choose_backend
        choose_backend()
    """
    _, message = child(program, code=1, KERAS_BACKEND=backend)
    expected = match or "is not installed: pip install '.[tensorflow]'"
    assert message.startswith(f"KERAS_BACKEND={backend} {expected}")
