"""The subcommands of `mobilenet-zoo`, run with their command lines."""

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
from mobilenet_cli import bench, convert
from mobilenet_cli.commands import app
from mobilenet_common.checkpoints import TORCH_LAYOUTS
from mobilenet_common.facts import Facts, remember
from mobilenet_runtime import Metadata, embed
from mobilenet_runtime.class_names import imagenet_classes
from mobilenet_v2 import create_mobilenetv2
from mobilenet_zoo.registry import WEIGHTS, registry
from tests import photographs, seeded
from tests.runtime import tiny

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("list", "info", "plot", "predict", "features", "evaluate", "explain", "convert", "export", "bench")


def run(*arguments, code=0, columns=100):
    """Run the command, check its exit status, and return the result with its output."""
    result = CliRunner(env={"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}).invoke(app, list(arguments))
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def plain(text):
    """Return the text as one line, because tables and messages are wrapped."""
    return " ".join(text.split())


KERAS = ("keras", "tensorflow", "jax", "torch")


def run_as_program(*arguments, home, missing, code=0):
    """Run the command in a child process without KERAS_BACKEND and without the `missing` modules; return its output."""
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    paths = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    environment |= {"KERAS_HOME": str(home), "PYTHONPATH": os.pathsep.join(paths)}
    program = f"""if True:
        import importlib.util, sys
        find_spec = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name in {missing} else find_spec(name, *rest)
        sys.modules |= dict.fromkeys({missing})
        from mobilenet_cli import main
        main()
    """
    command = [sys.executable, "-c", program, *map(str, arguments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout if code == 0 else result.stderr


class TestHelp:
    def test_help_lists_commands_and_examples(self):
        output = plain(run("--help").output)
        for command in COMMANDS:
            assert f" {command} " in output
        assert "mobilenet-zoo list --max-macs 500 --sort accuracy" in output

    @pytest.mark.parametrize("command", COMMANDS)
    def test_all_options_have_descriptions(self, command):
        output = run(command, "--help", columns=200).output
        options = re.findall(r"^│ (?:\*\s+)?(--[\w-]+)(.*)│$", output, re.MULTILINE)
        assert options
        for option, text in options:
            assert re.search(r"[A-Z].*\.", text), f"{option} has no description"

    def test_command_runs_without_default_backend(self, tmp_path):
        """KERAS_BACKEND is not set, and Keras's default backend is not installed."""
        create_mobilenetv2("0.35", 3, (32, 32, 3)).save(tmp_path / "a.keras")
        arguments = ("convert", tmp_path / "a.keras", tmp_path / "b.weights.h5")
        assert "Written" in run_as_program(*arguments, home=tmp_path, missing=["tensorflow"])

    def test_help_and_version_need_neither_keras_nor_backend(self, tmp_path):
        assert run_as_program("--version", home=tmp_path, missing=KERAS).strip() == mobilenet_zoo.__version__
        for arguments in (
            ["--help"],
            ["bench", "--help"],
            ["convert", "--help"],
            ["evaluate", "--help"],
            ["explain", "--help"],
            ["export", "--help"],
            ["predict", "--help"],
        ):
            assert "mobilenet-zoo" in run_as_program(*arguments, home=tmp_path, missing=KERAS)

    def test_missing_backend_error_shows_install_command(self, tmp_path):
        arguments = ("convert", __file__, "a.keras", "-m", "mobilenetv2_035")
        message = run_as_program(*arguments, home=tmp_path, missing=KERAS[1:], code=1)
        assert "mobilenet-zoo needs a backend: pip install '.[torch]'" in message
        message = run_as_program(*arguments, home=tmp_path, missing=KERAS, code=1)
        assert message == "mobilenet-zoo needs Keras for this: pip install keras.\n"


class TestList:
    def test_lists_all_weights(self):
        output = run("list", "--json").stdout
        assert {row["name"] for row in json.loads(output)} == set(WEIGHTS)

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
    def test_table_fits_terminal(self, columns):
        lines = run("list", columns=columns).stdout.splitlines()
        assert max(map(len, lines)) <= columns
        assert len(lines) == len(WEIGHTS) + 1
        if columns >= 80:
            for name in WEIGHTS:
                assert any(line.startswith(name) for line in lines), name

    def test_no_matches_suggests_wider_filters(self):
        result = run("list", "--min-accuracy", "99")
        assert result.stdout == ""
        assert "Widen the filters" in result.stderr

    def test_wrong_option_values_exit_with_2(self):
        assert "Did you mean 'timm'" in plain(run("list", "--source", "tim", code=2).stderr)
        assert "v4" in plain(run("list", "-g", "v5", code=2).stderr)

    def test_lists_architectures(self):
        rows = json.loads(run("list", "--architectures", "--json").stdout)
        assert {row["name"] for row in rows} == set(registry())
        small = next(row for row in rows if row["name"] == "mobilenetv4_conv_small")
        assert len(small["weights"]) == 3
        assert "mobilenetv4_compact_nano" in run("list", "*compact*", "--architectures").stdout


class TestInfo:
    def test_info_shows_facts_and_code_that_loads_weights(self):
        name = "mobilenetv4_conv_small_050.e3000_r224_in1k"
        output = run("info", name).stdout
        checkpoint = WEIGHTS[name]
        for value in (checkpoint.license, checkpoint.paper, checkpoint.repository, str(checkpoint.best.top1)):
            assert value in plain(output)
        code = output[output.index("import mobilenet_zoo") :]
        compile(code, "info", "exec")
        assert f'create_model("{name}")' in code
        assert 'create_mobilenetv4("conv_small", width_multiplier=0.5, weights="e3000_r224_in1k")' in plain(code)

    @pytest.mark.parametrize("name", [*WEIGHTS, *registry()])
    def test_info_of_all_names(self, name):
        record = json.loads(run("info", name, "--json").stdout)
        assert record["name"] == name
        assert record["parameters"] > 0

    def test_unknown_name_suggests_similar_name(self):
        message = plain(run("info", "mobilenetv4_conv_smal", code=2).stderr)
        assert "Did you mean 'mobilenetv4_conv_small'" in message


def test_plot_writes_png_and_svg(tmp_path):
    paths = run("plot", "-o", str(tmp_path / "new" / "zoo.png")).stdout.split()
    assert paths == [str(tmp_path / "new" / f"zoo.{ending}") for ending in ("png", "svg")]
    with Image.open(paths[0]) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colors = {tuple(color) for color in np.unique(pixels, axis=0)}
    assert len(colors) > 100
    assert Path(paths[1]).read_text().count("<use") > len(WEIGHTS), "every checkpoint has a marker in both panels"


@pytest.fixture
def photos(tmp_path):
    """A folder with two photographs, one of them in a subfolder, and a text file."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    photographs.photograph().save(folder / "a.jpg")
    photographs.photograph(photographs.PORTRAIT).save(folder / "more" / "b.png")
    (folder / "notes.txt").write_text("not an image")
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
        rows = self.records(str(photos), "-m", str(flowers), "--top", "2")
        assert [Path(row["image"]).name for row in rows] == ["a.jpg", "b.png"]
        model = mobilenet_zoo.from_pretrained(flowers)
        values = model.predict(mobilenet_zoo.preprocessing(model)([photos / "a.jpg"]), verbose=0)
        ((expected, second),) = mobilenet_zoo.decode_predictions(values, 2, ("daisy", "rose", "tulip"))
        assert [prediction["name"] for prediction in rows[0]["predictions"]] == [expected.name, second.name]
        assert rows[0]["predictions"][0]["probability"] == pytest.approx(expected.probability, rel=1e-5)
        deduplicated = self.records(
            str(photos / "*.jpg"), str(photos / "a.jpg"), "-m", str(flowers), "--batch-size", "1"
        )
        assert [row["image"] for row in deduplicated] == [str(photos / "a.jpg")]

    def test_table_and_csv_formats(self, photos, flowers, tmp_path):
        table = run("predict", str(photos), "-m", str(flowers), columns=200).stdout
        assert re.search(r"a\.jpg\s+(daisy|rose|tulip)\s+[\d.]+%", table)
        path = tmp_path / "new" / "predictions.csv"
        run("predict", str(photos), "-m", str(flowers), "-f", "csv", "-o", str(path))
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        assert len(rows) == 6
        assert [row["rank"] for row in rows[:3]] == ["1", "2", "3"]
        assert sum(float(row["probability"]) for row in rows[:3]) == pytest.approx(1, abs=1e-5)

    def test_unreadable_images_are_skipped_and_reported(self, photos, flowers):
        (photos / "broken.jpg").write_bytes(b"broken")
        result = run("predict", str(photos), str(photos / "absent.jpg"), "-m", str(flowers), "--json", code=1)
        assert len(result.stdout.splitlines()) == 2
        message = plain(result.stderr)
        assert "broken.jpg can't be read" in message
        assert "absent.jpg does not exist" in message
        assert "2 of the images could not be read" in message

    def test_logits_become_probabilities(self, photos, tmp_path):
        model = create_mobilenetv2("0.35", 4, (32, 32, 3), classifier_activation=None)
        model.get_layer("classifier").bias.assign([3.0, 1.0, 0.0, -2.0])
        model.save(tmp_path / "logits.keras")
        rows = self.records(str(photos / "a.jpg"), "-m", str(tmp_path / "logits.keras"))
        assert sum(prediction["probability"] for prediction in rows[0]["predictions"]) == pytest.approx(1, abs=1e-5)
        assert rows[0]["predictions"][0]["name"] == "class 0"

    def test_predict_with_published_weights(self, photos, hub, tmp_path):
        from safetensors.numpy import save_file

        from tests import references

        name = "mobilenetv4_conv_small_050.e3000_r224_in1k"
        shapes = references.checkpoints()["timm/mobilenetv4_conv_small_050"]["shapes"]
        save_file(seeded.state_dict(shapes), tmp_path / "model.safetensors")
        hub.files[f"timm/{name}", "model.safetensors"] = tmp_path / "model.safetensors"
        rows = self.records(str(photos), "--model", name)
        model = mobilenet_zoo.create_model(name)
        values = model.predict(mobilenet_zoo.preprocessing(name)([photos / "a.jpg"]), verbose=0)
        (expected,) = mobilenet_zoo.decode_predictions(values, 1)[0]
        assert rows[0]["predictions"][0]["id"] == expected.id

    def test_errors_name_argument_or_pattern(self, photos, flowers, tmp_path):
        assert "There are no images" in plain(run("predict", str(tmp_path / "*.gif"), code=2).stderr)
        message = plain(run("predict", str(photos), "-m", str(flowers), "--top", "0", code=2).stderr)
        assert "--top=0 is not allowed" in message


def metadata(kind, **changes):
    """Return metadata for a tiny file."""
    fields = {
        "name": "tiny",
        "class_names": ("rose", "lily", "oak", "elm", "fern"),
        "size": (tiny.SIZE, tiny.SIZE),
        "channels": tiny.CHANNELS,
        "layout": "NHWC" if kind in ("tflite", "saved_model") else "NCHW",
        "crop": 0.9,
        "interpolation": "bilinear",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "gives": "probabilities",
    }
    return Metadata(**fields | changes)


def exported(kind, folder, *, embedded=True, outputs=("probabilities",), **changes):
    """Write a tiny exported classifier and return its path."""
    path = tiny.write(kind, folder, outputs=outputs)
    if embedded:
        embed(path, metadata(kind, **changes))
    return path


def imagenet_file(path, classes):
    """Write an ONNX classifier; return a function that computes its predicted classes with NumPy."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    matrix = np.random.default_rng(0).normal(size=(3, classes)).astype("float32")
    nodes = [
        onnx.helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        onnx.helper.make_node("MatMul", ["mean", "matrix"], ["logits"]),
        onnx.helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "classifier",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, [1, classes])],
        [onnx.numpy_helper.from_array(matrix, "matrix")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return lambda images: (images.mean((1, 2)) @ matrix).argmax(-1)


class TestPredictWithExportedFile:
    def records(self, *arguments, code=0):
        return [json.loads(line) for line in run("predict", *arguments, "--json", code=code).stdout.splitlines()]

    @pytest.mark.parametrize("kind", tiny.FORMATS)
    def test_every_format(self, kind, photos, tmp_path):
        path = exported(kind, tmp_path)
        rows = self.records(str(photos), "-m", str(path), "--batch-size", "1")
        assert [Path(row["image"]).name for row in rows] == ["a.jpg", "b.png"]
        transform = metadata(kind).transform()
        images = transform([photos / "a.jpg", photos / "more" / "b.png"])
        for row, expected in zip(rows, tiny.expected(images)["probabilities"], strict=True):
            names = [prediction["name"] for prediction in row["predictions"]]
            assert names == [metadata(kind).class_names[i] for i in np.argsort(-expected)]
            probabilities = [prediction["probability"] for prediction in row["predictions"]]
            np.testing.assert_allclose(probabilities, np.sort(expected)[::-1], atol=1e-4)

    def test_logits_become_probabilities(self, photos, tmp_path):
        path = exported("onnx", tmp_path, outputs=("logits",), gives="logits", class_names=None)
        (row, _) = self.records(str(photos), "-m", str(path))
        images = metadata("onnx").transform()([photos / "a.jpg"])
        expected = tiny.expected(images)["probabilities"][0]
        assert row["predictions"][0]["name"] == f"class {expected.argmax()}"
        assert row["predictions"][0]["probability"] == pytest.approx(expected.max(), abs=1e-5)

    @pytest.mark.parametrize("output", ["probabilities", "logits"])
    def test_without_metadata(self, output, photos, tmp_path):
        path = exported("onnx", tmp_path, embedded=False, outputs=(output,))
        result = run("predict", str(photos), "-m", str(path), "--json")
        assert "model.onnx has no metadata" in plain(result.stderr)
        transform = mobilenet_zoo.Preprocessing((8, 8), 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)
        expected = tiny.expected(transform([photos / "a.jpg"]))["probabilities"][0]
        first = json.loads(result.stdout.splitlines()[0])["predictions"][0]
        assert first["name"] == f"class {expected.argmax()}"
        assert first["probability"] == pytest.approx(expected.max(), abs=1e-5)

    @pytest.mark.parametrize("classes, has_names", [(1000, False), (1000, True), (1001, True)])
    def test_imagenet_predictions_have_synset_ids(self, classes, has_names, photos, tmp_path):
        path = tmp_path / "imagenet.onnx"
        predict_classes = imagenet_file(path, classes)
        names = ["background", *(name for _, name in imagenet_classes())][-classes:]
        embedded_metadata = metadata("onnx", class_names=names if has_names else None)
        embed(path, embedded_metadata)
        (row, _) = self.records(str(photos), "-m", str(path), "--top", "1")
        ids = ["background", *(synset for synset, _ in imagenet_classes())][-classes:]
        (expected,) = predict_classes(embedded_metadata.transform()([photos / "a.jpg"]))
        assert row["predictions"][0]["id"] == ids[expected]
        assert row["predictions"][0]["name"] == names[expected]

    def test_files_that_are_not_classifiers_exit_with_2(self, photos, tmp_path):
        def message_of(path):
            return plain(run("predict", str(photos), "-m", str(path), code=2).stderr)

        assert "outputs features, not classes" in message_of(exported("onnx", tmp_path, gives="features"))
        assert "has the outputs map, probabilities, but a classifier has one output" in message_of(
            exported("onnx", tmp_path, outputs=tiny.OUTPUTS)
        )
        path = exported("onnx", tmp_path, embedded=False, outputs=("map",))
        assert "outputs features, not classes" in message_of(path)
        assert "absent.tflite does not exist" in message_of(tmp_path / "absent.tflite")
        (tmp_path / "damaged.onnx").write_bytes(b"damaged")
        assert "can't load" in message_of(tmp_path / "damaged.onnx")
        message = plain(run("features", str(photos), "-m", str(path), "-o", "x.npz", code=2).stderr)
        assert "is an exported file" in message

    def test_missing_runtime_error_shows_install_command(self, photos, tmp_path, monkeypatch):
        path = exported("onnx", tmp_path)
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        message = plain(run("predict", str(photos), "-m", str(path), code=2).stderr)
        assert "onnxruntime, which is not installed" in message
        assert "pip install '.[export]'" in message

    @pytest.mark.parametrize("kind", ["tflite", "onnx", "xml"])
    def test_neither_keras_nor_backend_is_needed(self, kind, photos, tmp_path):
        path = exported(kind, tmp_path)
        output = run_as_program("predict", photos, "--model", path, "--json", home=tmp_path, missing=KERAS)
        assert [Path(json.loads(line)["image"]).name for line in output.splitlines()] == ["a.jpg", "b.png"]


class TestBench:
    def test_bench_measures_several_files(self, tmp_path):
        paths = [exported(kind, tmp_path) for kind in ("onnx", "xml")]
        rows = json.loads(run("bench", *map(str, paths), "--rounds", "2", "--runs", "2", "--json").stdout)
        assert [row["file"] for row in rows] == list(map(str, paths))
        assert [row["runtime"].split(" ")[0] for row in rows] == ["ONNX", "OpenVINO"]
        assert rows[0]["size_mb"] == pytest.approx(paths[0].stat().st_size / 1e6)
        assert rows[0]["metadata"]["name"] == "tiny"
        assert all(row[key] > 0 for row in rows for key in ("latency_ms", "fastest_ms", "peak_memory_mb", "load_s"))

    def test_table_shows_median_of_alternating_rounds(self, tmp_path, monkeypatch):
        for name in ("a.onnx", "b.onnx"):
            (tmp_path / name).write_bytes(bytes(2_000_000))
        calls = []

        def measure(file, threads, runs):
            calls.append((Path(file).name, threads, runs))
            latency = (9.0, 1.0, 4.0)[(len(calls) - 1) // 2]
            varying = {
                "latency_ms": latency,
                "fastest_ms": latency / 2,
                "peak_memory_mb": 100.0 * latency,
                "load_s": latency / 10,
            }
            return {"runtime": "ONNX Runtime 1", "operations": {"Conv": 52, "Relu": 35}} | varying, None

        monkeypatch.setattr(bench, "measure", measure)
        files = [str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")]
        output = run("bench", *files, "--threads", "1", "--runs", "5").stdout
        assert [name for name, *_ in calls] == ["a.onnx", "b.onnx"] * 3
        assert {(threads, runs) for _, threads, runs in calls} == {(1, 5)}
        lines = [plain(line) for line in output.splitlines()]
        assert lines[0] == "file size (MB) runtime operations latency (ms) memory (MB) load (s)"
        assert lines[1:] == [f"{name} 2.00 ONNX Runtime 1 87 4.00 400 0.40" for name in ("a.onnx", "b.onnx")]
        calls.clear()
        narrow = run("bench", *files, columns=60).stdout
        assert max(map(len, narrow.splitlines())) <= 60
        for cell in ("a.onnx", "87", "4.00", "400", "0.40"):
            assert f" {cell} " in f" {plain(narrow)} "

    def test_unmeasurable_files_are_skipped_and_reported(self, tmp_path):
        path = exported("onnx", tmp_path)
        (tmp_path / "damaged.onnx").write_bytes(b"damaged")
        files = [str(tmp_path / "damaged.onnx"), str(path), str(tmp_path / "absent.xml")]
        result = run("bench", *files, "--rounds", "1", "--runs", "1", "--json", code=1)
        assert [row["file"] for row in json.loads(result.stdout)] == [str(path)]
        message = plain(result.stderr)
        assert "damaged.onnx" in message and "absent.xml does not exist" in message
        assert "--rounds=0" in plain(run("bench", str(path), "--rounds", "0", code=2).stderr)

    def test_neither_keras_nor_backend_is_needed(self, tmp_path):
        path = exported("onnx", tmp_path)
        output = run_as_program("bench", path, "--rounds", "1", "--runs", "1", "--json", home=tmp_path, missing=KERAS)
        assert json.loads(output)[0]["output_names"] == ["probabilities"]


@pytest.mark.filterwarnings("error::UserWarning")  # users would see the warnings
def test_features_are_inputs_of_classifier(photos, flowers, tmp_path):
    path = tmp_path / "new" / "features.npz"
    run("features", str(photos), "-m", str(flowers), "-o", str(path))
    with np.load(path) as arrays:
        assert [Path(path).name for path in arrays["paths"]] == ["a.jpg", "b.png"]
        features = arrays["features"]
    model = mobilenet_zoo.from_pretrained(flowers)
    images = mobilenet_zoo.preprocessing(model)([photos / "a.jpg", photos / "more" / "b.png"])
    kernel, bias = (keras.ops.convert_to_numpy(weight) for weight in model.get_layer("classifier").weights)
    logits = features @ kernel + bias
    expected = np.log(model.predict(images, verbose=0))
    np.testing.assert_allclose(logits - logits[:, :1], expected - expected[:, :1], atol=1e-4)
    body = create_mobilenetv2("0.35", include_top=False, input_shape=(32, 32, 3))
    body.save(tmp_path / "body.keras")
    run("features", str(photos), "-m", str(tmp_path / "body.keras"), "-o", str(path))
    with np.load(path) as arrays:
        assert arrays["features"].shape == (2, 1280)
    assert ".npz" in plain(run("features", str(photos), "-o", "x.csv", code=2).stderr)


class TestConvert:
    def test_all_layouts_are_offered(self):
        assert convert.LAYOUTS == TORCH_LAYOUTS

    def test_conversion_round_trip(self, tmp_path):
        model = mobilenet_zoo.create_model("mobilenetv2_035", num_classes=4, input_shape=(32, 32, 3))
        model.save(tmp_path / "a.keras")
        output = run("convert", str(tmp_path / "a.keras"), str(tmp_path / "b.safetensors"), "--to", "timm").stdout
        assert "timm.create_model(model_name='mobilenetv2_035', num_classes=4, in_chans=3)" in plain(output)
        options = ("--from", "timm", "--model", "mobilenetv2_035")
        run("convert", str(tmp_path / "b.safetensors"), str(tmp_path / "c.keras"), *options[:3], "timm/mobilenetv2_035")
        restored = keras.saving.load_model(tmp_path / "c.keras")
        for actual, expected in zip(restored.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(actual, expected)
        run("convert", str(tmp_path / "b.safetensors"), str(tmp_path / "d.pth"), "--to", "torchvision", *options[2:])
        run("convert", str(tmp_path / "d.pth"), str(tmp_path / "e.weights.h5"), *options[2:])
        model.load_weights(tmp_path / "e.weights.h5")

    @pytest.mark.parametrize(
        "arguments, match",
        [
            (("a.safetensors", "b.keras"), "pass the model's name"),
            (("a.keras", "b.safetensors"), "must end with .keras or .weights.h5"),
            ((__file__, "b.keras", "--model", "somewhere/mobilenetv2_100"), "'somewhere/mobilenetv2_100' is not known"),
            (("a.keras", "b.h5", "--to", "timm"), "must end with .safetensors or .pth"),
            (("absent.keras", "b.keras"), "absent.keras is not a file"),
            (("absent.pth", "b.keras", "-m", "mobilenetv2_035"), "absent.pth is not a file"),
        ],
    )
    def test_wrong_arguments_exit_with_2(self, arguments, match):
        assert match in plain(run("convert", *arguments, code=2).stderr)
