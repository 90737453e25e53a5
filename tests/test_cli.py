"""The command `mobilenet-zoo`, as a user runs it."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import mobilenet_zoo
from mobilenet_cli.app import app
from mobilenet_v2 import create_mobilenetv2
from mobilenet_zoo.facts import Facts, remember
from mobilenet_zoo.registry import WEIGHTS, registry
from tests import photographs, seeded

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("list", "info", "plot", "predict", "features", "convert")


def run(*arguments, code=0, columns=100):
    """What the command prints, after a check of its exit status."""
    result = CliRunner(env={"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}).invoke(app, list(arguments))
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def plain(text):
    """Text as one line: tables and messages are wrapped."""
    return " ".join(text.split())


class TestHelp:
    def test_it_names_the_commands_and_shows_examples(self):
        said = plain(run("--help").output)
        for command in COMMANDS:
            assert f" {command} " in said
        assert "mobilenet-zoo list --max-macs 500 --sort accuracy" in said

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_option_of_every_command_is_explained(self, command):
        said = run(command, "--help", columns=200).output
        options = re.findall(r"^│ (?:\*\s+)?(--[\w-]+)(.*)│$", said, re.MULTILINE)
        assert options
        for option, rest in options:
            assert re.search(r"[A-Z].*\.", rest), f"{option} has no sentence"

    def test_as_a_program(self, tmp_path):
        """Nobody has chosen a backend, and that which Keras itself would choose is not installed."""
        environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
        environment |= {"KERAS_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        program = "import sys; sys.modules['tensorflow'] = None; from mobilenet_cli import main; main()"
        command = [sys.executable, "-c", program, "--version"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert (result.returncode, result.stdout.strip()) == (0, mobilenet_zoo.__version__), result.stderr


class TestList:
    def test_all_weights(self):
        said = run("list", "--json").stdout
        assert {row["name"] for row in json.loads(said)} == set(WEIGHTS)

    def test_filters_and_order(self):
        rows = json.loads(run("list", "*v[34]*", "--max-macs", "300", "--sort", "accuracy", "--json").stdout)
        assert rows and all(row["macs"] <= 300e6 and row["generation"] in ("v3", "v4") for row in rows)
        accuracies = [row["top1"] or 0 for row in rows]
        assert accuracies == sorted(accuracies, reverse=True)
        rows = json.loads(run("list", "-g", "v4", "--min-accuracy", "82", "--sort", "macs", "--json").stdout)
        assert {row["generation"] for row in rows} == {"v4"}
        assert [row["macs"] for row in rows] == sorted(row["macs"] for row in rows)
        assert min(row["top1"] for row in rows) >= 82
        rows = json.loads(run("list", "--source", "torchvision", "--max-parameters", "3", "--json").stdout)
        assert [row["name"] for row in rows] == ["mobilenetv3_small_100.tv_v1_in1k"]

    @pytest.mark.parametrize("columns", [60, 80, 120, 200])
    def test_the_table_fits_the_terminal(self, columns):
        lines = run("list", columns=columns).stdout.splitlines()
        assert max(map(len, lines)) <= columns
        assert len(lines) == len(WEIGHTS) + 1
        if columns >= 80:
            for name in WEIGHTS:
                assert any(line.startswith(name) for line in lines), name

    def test_nothing_fits(self):
        result = run("list", "--min-accuracy", "99")
        assert result.stdout == ""
        assert "Widen the filters" in result.stderr

    def test_wrong_values(self):
        assert "Did you mean 'timm'" in plain(run("list", "--source", "tim", code=2).stderr)
        assert "v4" in plain(run("list", "-g", "v5", code=2).stderr)

    def test_architectures(self):
        rows = json.loads(run("list", "--architectures", "--json").stdout)
        assert {row["name"] for row in rows} == set(registry())
        small = next(row for row in rows if row["name"] == "mobilenetv4_conv_small")
        assert len(small["weights"]) == 3
        assert "mobilenetv4_compact_nano" in run("list", "*compact*", "--architectures").stdout


class TestInfo:
    def test_everything_known_and_lines_that_load_it(self):
        name = "mobilenetv4_conv_small_050.e3000_r224_in1k"
        said = run("info", name).stdout
        checkpoint = WEIGHTS[name]
        for value in (checkpoint.licence, checkpoint.paper, checkpoint.repository, str(checkpoint.best.top1)):
            assert value in plain(said)
        code = said[said.index("import mobilenet_zoo") :]
        compile(code, "info", "exec")
        assert f'create_model("{name}")' in code
        assert 'create_mobilenetv4("conv_small", width_multiplier=0.5, weights="e3000_r224_in1k")' in plain(code)

    @pytest.mark.parametrize("name", [*WEIGHTS, *registry()])
    def test_every_name(self, name):
        record = json.loads(run("info", name, "--json").stdout)
        assert record["name"] == name
        assert record["parameters"] > 0

    def test_an_unknown_name(self):
        said = plain(run("info", "mobilenetv4_conv_smal", code=2).stderr)
        assert "Did you mean 'mobilenetv4_conv_small'" in said


def test_plot(tmp_path):
    said = run("plot", "-o", str(tmp_path / "new" / "zoo.png")).stdout.split()
    assert said == [str(tmp_path / "new" / f"zoo.{ending}") for ending in ("png", "svg")]
    with Image.open(said[0]) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    colours = {tuple(colour) for colour in np.unique(pixels, axis=0)}
    assert len(colours) > 100
    assert Path(said[1]).read_text().count("<use") > len(WEIGHTS), "a mark for each, in both panels"


@pytest.fixture
def photos(tmp_path):
    """Two photographs, one of them in a folder of a folder, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    photographs.photograph().save(folder / "a.jpg")
    photographs.photograph(photographs.PORTRAIT).save(folder / "more" / "b.png")
    (folder / "notes.txt").write_text("no picture, and its ending says so")
    return folder


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """A folder with a small model of three classes."""
    model = create_mobilenetv2("0.35", 3, (32, 32, 3), name="flowers")
    remember(model, Facts((32, 32), 0.9, "bilinear", class_names=("daisy", "rose", "tulip")))
    return mobilenet_zoo.save_pretrained(model, tmp_path_factory.mktemp("model") / "flowers")


class TestPredict:
    def records(self, *arguments, code=0):
        return [json.loads(line) for line in run("predict", *arguments, "--json", code=code).stdout.splitlines()]

    def test_folders_files_and_patterns(self, photos, flowers):
        found = self.records(str(photos), "-m", str(flowers), "--top", "2")
        assert [Path(row["picture"]).name for row in found] == ["a.jpg", "b.png"]
        model = mobilenet_zoo.from_pretrained(flowers)
        values = model.predict(mobilenet_zoo.preprocessing(model)([photos / "a.jpg"]), verbose=0)
        ((expected, second),) = mobilenet_zoo.decode_predictions(values, 2, ("daisy", "rose", "tulip"))
        assert [each["name"] for each in found[0]["predictions"]] == [expected.name, second.name]
        assert found[0]["predictions"][0]["probability"] == pytest.approx(expected.probability, rel=1e-5)
        again = self.records(str(photos / "*.jpg"), str(photos / "a.jpg"), "-m", str(flowers), "--batch-size", "1")
        assert [row["picture"] for row in again] == [str(photos / "a.jpg")]

    def test_every_format(self, photos, flowers, tmp_path):
        table = run("predict", str(photos), "-m", str(flowers)).stdout
        assert re.search(r"a\.jpg\s+(daisy|rose|tulip)\s+[\d.]+%", table)
        path = tmp_path / "new" / "answers.csv"
        run("predict", str(photos), "-m", str(flowers), "-f", "csv", "-o", str(path))
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        assert len(rows) == 6
        assert [row["rank"] for row in rows[:3]] == ["1", "2", "3"]
        assert sum(float(row["probability"]) for row in rows[:3]) == pytest.approx(1, abs=1e-5)

    def test_pictures_that_cant_be_read_are_skipped_and_told(self, photos, flowers):
        (photos / "broken.jpg").write_bytes(b"broken")
        result = run("predict", str(photos), str(photos / "absent.jpg"), "-m", str(flowers), "--json", code=1)
        assert len(result.stdout.splitlines()) == 2
        said = plain(result.stderr)
        assert "broken.jpg can't be read" in said
        assert "absent.jpg can't be read" in said
        assert "2 of the pictures could not be read" in said

    def test_logits_become_probabilities(self, photos, tmp_path):
        model = create_mobilenetv2("0.35", 4, (32, 32, 3), classifier_activation=None)
        model.get_layer("classifier").bias.assign([3.0, 1.0, 0.0, -2.0])
        model.save(tmp_path / "logits.keras")
        found = self.records(str(photos / "a.jpg"), "-m", str(tmp_path / "logits.keras"))
        assert sum(each["probability"] for each in found[0]["predictions"]) == pytest.approx(1, abs=1e-5)
        assert found[0]["predictions"][0]["name"] == "class 0"

    def test_published_weights(self, photos, hub, tmp_path):
        from safetensors.numpy import save_file

        from tests import references

        name = "mobilenetv4_conv_small_050.e3000_r224_in1k"
        shapes = references.checkpoints()["timm/mobilenetv4_conv_small_050"]["shapes"]
        save_file(seeded.state_dict(shapes), tmp_path / "model.safetensors")
        hub.files[f"timm/{name}", "model.safetensors"] = tmp_path / "model.safetensors"
        found = self.records(str(photos), "--model", name)
        model = mobilenet_zoo.create_model(name)
        values = model.predict(mobilenet_zoo.preprocessing(name)([photos / "a.jpg"]), verbose=0)
        (expected,) = mobilenet_zoo.decode_predictions(values, 1)[0]
        assert found[0]["predictions"][0]["id"] == expected.id

    def test_errors_say_what_to_do(self, photos, flowers, tmp_path):
        assert "There are no pictures" in plain(run("predict", str(tmp_path / "*.gif"), code=2).stderr)
        assert "neither a folder" in plain(run("predict", str(photos), "-m", "flowers", code=2).stderr)
        said = plain(run("predict", str(photos), "-m", str(flowers), "--top", "0", code=2).stderr)
        assert "--top=0 is not allowed" in said


@pytest.mark.filterwarnings("error::UserWarning")  # a user would see each
def test_features(photos, flowers, tmp_path):
    path = tmp_path / "new" / "features.npz"
    run("features", str(photos), "-m", str(flowers), "-o", str(path))
    with np.load(path) as found:
        assert [Path(each).name for each in found["paths"]] == ["a.jpg", "b.png"]
        features = found["features"]
    model = mobilenet_zoo.from_pretrained(flowers)
    pictures = mobilenet_zoo.preprocessing(model)([photos / "a.jpg", photos / "more" / "b.png"])
    kernel, bias = (keras.ops.convert_to_numpy(each) for each in model.get_layer("classifier").weights)
    logits = features @ kernel + bias
    expected = np.log(model.predict(pictures, verbose=0))
    np.testing.assert_allclose(logits - logits[:, :1], expected - expected[:, :1], atol=1e-4)
    body = create_mobilenetv2("0.35", include_top=False, input_shape=(32, 32, 3))
    body.save(tmp_path / "body.keras")
    run("features", str(photos), "-m", str(tmp_path / "body.keras"), "-o", str(path))
    with np.load(path) as found:
        assert found["features"].shape == (2, 1280)
    assert ".npz" in plain(run("features", str(photos), "-o", "x.csv", code=2).stderr)


class TestConvert:
    def test_there_and_back(self, tmp_path):
        model = mobilenet_zoo.create_model("mobilenetv2_035", num_classes=4, input_shape=(32, 32, 3))
        model.save(tmp_path / "a.keras")
        said = run("convert", str(tmp_path / "a.keras"), str(tmp_path / "b.safetensors"), "--to", "timm").stderr
        assert "timm.create_model(model_name='mobilenetv2_035', num_classes=4, in_chans=3)" in plain(said)
        options = ("--from", "timm", "--model", "mobilenetv2_035")
        run("convert", str(tmp_path / "b.safetensors"), str(tmp_path / "c.keras"), *options)
        back = keras.saving.load_model(tmp_path / "c.keras")
        for ours, theirs in zip(back.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        run("convert", str(tmp_path / "b.safetensors"), str(tmp_path / "d.pth"), "--to", "torchvision", *options[2:])
        run("convert", str(tmp_path / "d.pth"), str(tmp_path / "e.weights.h5"), *options[2:])
        model.load_weights(tmp_path / "e.weights.h5")

    @pytest.mark.parametrize(
        "arguments, match",
        [
            (("a.safetensors", "b.keras"), "name it by --model"),
            (("a.keras", "b.safetensors"), "must end with .keras or .weights.h5"),
            (("a.keras", "b.h5", "--to", "timm"), "must end with .safetensors or .pth"),
            (("absent.keras", "b.keras"), "absent.keras is not a file"),
            (("absent.pth", "b.keras", "-m", "mobilenetv2_035"), "absent.pth is not a file"),
        ],
    )
    def test_errors(self, arguments, match):
        assert match in plain(run("convert", *arguments, code=2).stderr)
