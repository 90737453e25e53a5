"""The command `mobilenet-zoo export`: arguments, reports and calibration labels."""

import csv
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import mobilenet_zoo
from mobilenet_cli.calibration_labels import read_labels
from mobilenet_common import Architecture
from mobilenet_common.architecture import Conv, Inverted
from mobilenet_common.errors import ExportError
from mobilenet_common.facts import Facts, remember
from mobilenet_runtime import load
from mobilenet_runtime.class_names import imagenet_classes
from mobilenet_runtime.examples import read_examples
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo import ExportReport
from tests.test_cli import plain, run

pytestmark = pytest.mark.across

SIZE = 32
COLORS = ("blue", "green", "red")  # class names, in a different order than the channels
TINY = Architecture(
    name="tiny", stem=Conv(16, stride=2), stages=((Inverted(3, 48, 24, stride=2),), (Inverted(3, 48, 32, stride=2),))
)


def tiny_model():
    """Return an untrained classifier with three classes."""
    return create_mobilenetv4(TINY, num_classes=3, input_shape=(SIZE, SIZE, 3))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small model as a .keras file."""
    path = tmp_path_factory.mktemp("models") / "tiny.keras"
    keras.utils.set_random_seed(0)
    tiny_model().save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """An image folder with one subfolder per color and eight images in each."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for channel, color in enumerate(("red", "green", "blue")):
        (folder / color).mkdir()
        for i in range(8):
            pixels = random.integers(0, 128, (40, 50, 3))
            pixels[..., channel] += 127
            Image.fromarray(pixels.astype("uint8")).save(folder / color / f"{i}.png")
    return folder


@pytest.fixture
def calls(monkeypatch):
    """Replace `export_all`, and return the list of arguments of its calls."""
    recorded = []

    def export_all(model, paths, **options):
        assert callable(options.pop("progress"))
        recorded.append((model, paths, options))
        return iter([report(path) for path in paths])

    monkeypatch.setattr("mobilenet_zoo.exporting.export_all", export_all)
    return recorded


def report(path, **changes):
    fields = {
        "path": str(path),
        "format": "onnx",
        "input_shape": (1, 3, SIZE, SIZE),
        "layout": "NCHW",
        "quantization": None,
        "float_blocks": (),
        "bytes": 1_230_000,
        "float_bytes": 1_230_000,
        "runtime": "ONNX Runtime 1.23.0",
        "deviation": 2e-6,
        "agreement": 1.0,
        "images": 4,
        "latency_ms": 4.5,
        "operations": {"Conv": 52, "Relu": 35},
        "placement": {"CPUExecutionProvider": 87},
    }
    return ExportReport(**fields | changes)


@pytest.mark.slow
def test_export_writes_two_formats(saved, tmp_path):
    paths = [tmp_path / "new" / "tiny.onnx", tmp_path / "tiny.xml"]
    result = run("export", str(saved), *map(str, paths), columns=140)
    assert all(path.stat().st_size > 1000 for path in (*paths, tmp_path / "tiny.bin"))
    _, heading, *rows = [line.split() for line in result.stdout.splitlines()]
    assert "accuracy" not in heading and "float32" not in heading
    assert [row[:2] for row in rows] == [["tiny.onnx", "onnx"], ["tiny.xml", "openvino"]]
    assert [row[-2] for row in rows] == ["Runtime", "OpenVINO"]
    model = keras.saving.load_model(saved, compile=False)
    images = np.random.default_rng(0).uniform(-1, 1, (1, SIZE, SIZE, 3)).astype("float32")
    for path in paths:
        outputs = load(path)(images)
        np.testing.assert_allclose(outputs, model.predict(images, verbose=0), atol=1e-5)


@pytest.mark.slow
def test_int8_export_with_calibration_images_and_labels(photos, tmp_path):
    """The model is a folder from `save_pretrained`, and its classes have the names of the image subfolders."""
    model = tiny_model()
    remember(model, Facts((SIZE, SIZE), 0.9, "bilinear", class_names=("red", "green", "blue")))
    folder = mobilenet_zoo.save_pretrained(model, tmp_path / "colors")
    path = tmp_path / "tiny.onnx"
    options = ("--quantize", "int8", "--calibrate", str(photos), "--labels", "folders", "--keep-float", "stem")
    (report_fields,) = json.loads(run("export", str(folder), str(path), *options, "--json").stdout)
    assert report_fields["path"] == str(path)
    assert report_fields["quantization"] == "int8"
    assert report_fields["float_blocks"] == ["stem"]
    assert report_fields["operations"]["DequantizeLinear"] > 1
    assert report_fields["images"] == 4
    assert 0 <= report_fields["accuracy"] <= 1 and 0 <= report_fields["float_accuracy"] <= 1


class TestArguments:
    def test_default_options(self, calls, saved):
        run("export", str(saved), "a.onnx", "folder/b")
        ((model, paths, options),) = calls
        assert model.name == "tiny"
        assert paths == {"a.onnx": None, "folder/b": None}
        assert options == {
            "batch_size": 1,
            "image_size": None,
            "quantization": None,
            "calibration": None,
            "include_preprocessing": False,
            "include_softmax": None,
            "metadata": True,
            "verify": True,
            "float_blocks": None,
            "reduce_range": False,
        }

    def test_options_are_passed_on(self, calls, saved, photos):
        options = ["--quantize", "int8", "--calibrate", str(photos / "red"), "--calibrate", str(photos / "b*" / "*")]
        options += ["--batch-size", "any", "--size", "48x64", "--pixels", "--logits", "--no-metadata", "--no-verify"]
        options += ["--reduce-range"]
        run("export", str(saved), "a.onnx", *options, "--keep-float", "stem", "--keep-float", "classifier")
        ((_, _, options_passed),) = calls
        images = options_passed.pop("calibration")
        assert [Path(path).parent.name for path in images] == ["red"] * 8 + ["blue"] * 8
        assert options_passed == {
            "batch_size": None,
            "image_size": (48, 64),
            "quantization": "int8",
            "include_preprocessing": True,
            "include_softmax": False,
            "metadata": False,
            "verify": False,
            "float_blocks": ("stem", "classifier"),
            "reduce_range": True,
        }
        run("export", str(saved), "a.onnx", "--batch-size", "4", "--size", "64", "--softmax")
        assert [calls[1][2][name] for name in ("batch_size", "image_size", "include_softmax")] == [4, 64, True]

    def test_no_search_sets_float_blocks(self, calls, saved, photos):
        options = ("--quantize", "int8", "--calibrate", str(photos), "--no-search")
        run("export", str(saved), "a.onnx", *options)
        run("export", str(saved), "a.onnx", *options, "--keep-float", "stem")
        assert [passed["float_blocks"] for _, _, passed in calls] == [(), ("stem",)]

    def test_folder_labels_match_images(self, calls, saved, photos):
        run("export", str(saved), "a.onnx", "--calibrate", str(photos), "--labels", "folders")
        images, labels = calls[0][2]["calibration"]
        assert labels.shape == (24,)
        assert [COLORS[label] for label in labels] == [Path(path).parent.name for path in images]

    @pytest.mark.parametrize(
        "arguments, match",
        [
            (("a.tflite", "b.onnx"), "a.tflite is already an exported file"),
            (("SAVED", "a.onnx", "--quantize", "int8"), "--quantize=int8 needs --calibrate"),
            (("SAVED", "a.onnx", "--quantize", "int9"), "int9"),
            (("SAVED", "a.onnx", "--no-search"), "--no-search is for --quantize=int8"),
            (("SAVED", "a.onnx", "--reduce-range"), '--reduce-range=True is for quantization="int8"'),
            (("SAVED", "a.onnx", "--labels", "folders"), "--labels=folders needs --calibrate"),
            (("SAVED", "a.onnx", "--calibrate", "absent/*.gif"), "There are no images in absent/*.gif"),
            (("SAVED", "a.onnx", "--calibrate", "absent"), "--calibrate=absent does not exist"),
            (("SAVED", "a.onnx", "--batch-size", "many"), "--batch-size=many is not allowed"),
            (("SAVED", "a.onnx", "--batch-size", "0"), "--batch-size=0 is not allowed"),
            (("SAVED", "a.onnx", "--size", "2x2x2"), "--size=2x2x2 is not allowed"),
            (("SAVED", "a.onnx", "--size", "224x"), "--size=224x is not allowed"),
            (("SAVED", "a.onnx", "--size", "0"), "--size=0 is not allowed"),
            (("SAVED", "a.onnx", "--size", ""), "--size= is not allowed: it must be one whole number"),
            (("SAVED", "a.onnx", "--size", "large"), "--size=large is not allowed"),
            (("SAVED", "a.gguf"), "has the unknown extension '.gguf'"),
            (("SAVED", "a.tflite", "--batch-size", "any"), "is not allowed for LiteRT"),
            (("SAVED", "a.pt2", "--quantize", "dynamic"), "is not supported for torch.export"),
            (("SAVED", "a.onnx", "--quantize", "dynamic", "--keep-float", "stm"), "Did you mean 'stem'"),
            (("absent", "a.onnx"), "is not an existing folder"),
        ],
    )
    def test_wrong_arguments_exit_with_2(self, arguments, match, saved, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        command = [str(saved) if argument == "SAVED" else argument for argument in arguments]
        result = run("export", *command, code=2)
        assert match in plain(result.stderr)
        assert result.stdout == ""
        assert list(tmp_path.iterdir()) == []

    def test_too_few_images_exit_with_2(self, saved, photos, tmp_path):
        options = ("--quantize", "int8", "--calibrate", str(photos / "red"))
        message = plain(run("export", str(saved), str(tmp_path / "a.onnx"), *options, code=2).stderr)
        assert "calibration has 8 readable images, but at least 16 are required" in message


class TestReports:
    def replace_export_all(self, monkeypatch, *reports, error=None):
        def export_all(model, paths, **options):
            yield from reports
            if error:
                raise error

        monkeypatch.setattr("mobilenet_zoo.exporting.export_all", export_all)

    @pytest.fixture
    def small(self):
        return report(
            "folder/small.tflite",
            format="litert",
            quantization="int8",
            float_blocks=("stem", "pool"),
            bytes=400_000,
            float_bytes=1_600_000,
            agreement=0.975,
            accuracy=0.925,
            float_accuracy=0.95,
            notes=("made up",),
        )

    def test_table_and_notes(self, small, saved, monkeypatch):
        self.replace_export_all(monkeypatch, report("a.onnx"), small)
        lines = [plain(line) for line in run("export", str(saved), "a.onnx", columns=200).stdout.splitlines()]
        assert lines == [
            "size of same latency",
            "file format (MB) float32 deviation class accuracy (ms) operations runtime",
            "a.onnx onnx 1.23 2.0e-06 100.0% 4.50 87 ONNX Runtime 1.23.0",
            "small.tflite litert 0.40 25% 2.0e-06 97.5% 95.0% → 92.5% 4.50 87 ONNX Runtime 1.23.0",
            "small.tflite: left in float32: stem, pool",
            "small.tflite: made up",
        ]

    @pytest.mark.parametrize("columns", [60, 80, 100, 120])
    def test_table_fits_terminal(self, columns, small, saved, monkeypatch):
        self.replace_export_all(monkeypatch, report("a.onnx"), small)
        output = run("export", str(saved), "a.onnx", columns=columns).stdout
        assert max(map(len, output.splitlines())) <= columns
        for cell in ("small.tflite", "0.40", "2.0e-06", "95.0% → 92.5%", "4.50"):
            assert cell in output
        assert ("97.5%" in output, "ONNX Runtime 1.23.0" in output) == (columns >= 80, columns >= 120)

    def test_unverified_reports_have_fewer_columns(self, saved, monkeypatch):
        nothing = dict.fromkeys(("runtime", "deviation", "agreement", "images", "latency_ms", "operations"))
        self.replace_export_all(monkeypatch, report("a.onnx", **nothing))
        lines = [plain(line) for line in run("export", str(saved), "a.onnx").stdout.splitlines()]
        assert lines == ["size", "file format (MB)", "a.onnx onnx 1.23"]

    def test_json_contains_all_fields(self, small, saved, monkeypatch):
        self.replace_export_all(monkeypatch, report("a.onnx"), small)
        records = json.loads(run("export", str(saved), "a.onnx", "--json").stdout)
        assert records == json.loads(json.dumps([report("a.onnx").as_dict(), small.as_dict()]))

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_reports_before_a_failure_are_printed(self, options, saved, monkeypatch):
        self.replace_export_all(
            monkeypatch, report("a.onnx"), error=ExportError("b.onnx was not written: it deviates.")
        )
        result = run("export", str(saved), "a.onnx", "b.onnx", "c.xml", *options, code=2)
        assert "a.onnx" in result.stdout and "87" in result.stdout if not options else json.loads(result.stdout)
        assert "Not written: b.onnx, c.xml. Error: b.onnx was not written: it deviates." in plain(result.stderr)


class TestLabels:
    def test_folder_names_are_class_names(self):
        images = ["x/red/a.jpg", "y/blue/b.jpg", "blue/c.jpg"]
        assert read_labels("folders", images, ("red", "green", "blue"), 3) == [0, 2, 2]
        with pytest.raises(ValueError, match="--labels='x' is not known.*Allowed: red, green"):
            read_labels("folders", ["x/a.jpg"], ("red", "green"), 2)

    @pytest.mark.parametrize("part", ["", "train"])
    def test_folder_labels_match_read_examples(self, part, tmp_path):
        for name in ("cat/a/1.png", "cat/2.png", "dog/a/b/3.png"):
            (tmp_path / "photos" / part / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(tmp_path / "photos" / part / name)
        examples = read_examples(tmp_path / "photos")
        images, classes = list(examples.images), ("dog", "cat")

        def labels(source):
            return read_labels("folders", images, classes, 2, dict.fromkeys(images, str(source)))

        expected = [classes.index(examples.class_names[label]) for label in examples.labels]
        assert labels(tmp_path / "photos") == labels(tmp_path / "photos" / part / "**" / "*.png") == expected
        images = [path for path in images if "cat" in path]
        assert labels(tmp_path / "photos" / part / "cat") == [1, 1]

    def test_nested_images_have_label_of_class_folder(self, calls, saved, photos, tmp_path):
        photos = shutil.copytree(photos, tmp_path / "photos")
        subfolder = photos / COLORS[0] / "inside"
        subfolder.mkdir()
        next((photos / COLORS[0]).glob("*.*")).rename(subfolder / "0.png")
        run("export", str(saved), "a.onnx", "--calibrate", str(photos), "--labels", "folders")
        images, labels = calls[0][2]["calibration"]
        assert [COLORS[label] for label in labels] == [Path(path).relative_to(photos).parts[0] for path in images]

    def test_unnamed_classes_use_sorted_folders(self):
        assert read_labels("folders", ["b/1.jpg", "a/1.jpg", "c/1.jpg", "a/2.jpg"], None, 3) == [1, 0, 2, 0]
        with pytest.raises(ValueError, match="found 2 class folders, but the model has 3 classes without names"):
            read_labels("folders", ["b/1.jpg", "a/1.jpg"], None, 3)

    @pytest.mark.parametrize("outputs", [1000, 1001])
    def test_imagenet_folders_and_class_names(self, outputs, tmp_path):
        synsets = [synset for synset, _ in imagenet_classes()]
        images = [f"{synsets[i]}/a.jpg" for i in (999, 7)]
        assert read_labels("folders", images, None, outputs) == [outputs - 1, outputs - 993]
        assert read_labels("folders", [f"{imagenet_classes()[3][1]}/a.jpg"], None, outputs) == [outputs - 997]
        with pytest.raises(ValueError, match="'crane' is not known"):  # the name of two classes
            read_labels(self.write_csv(tmp_path, [("a.jpg", "crane")]), [str(tmp_path / "a.jpg")], None, outputs)

    def write_csv(self, folder, rows):
        with open(folder / "labels.csv", "w", newline="") as stream:
            csv.writer(stream).writerows(rows)
        return str(folder / "labels.csv")

    def test_csv_with_names_and_numbers(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "lists").mkdir()
        rows = [("a.jpg", "green"), (), (str(tmp_path / "more" / "b.jpg"), " 2"), ("../c, d.jpg", "red")]
        file = self.write_csv(tmp_path / "lists", [*rows, ("here.jpg", "1")])
        images = ["lists/a.jpg", "more/b.jpg", "c, d.jpg", "here.jpg"]
        assert read_labels(file, images, ("red", "green", "blue"), 3) == [1, 2, 0, 1]
        # Class names take precedence over class numbers.
        file = self.write_csv(tmp_path, [("a.jpg", "1"), ("b.jpg", "0")])
        assert read_labels(file, ["a.jpg", "b.jpg"], ("1", "7"), 2) == [0, 0]
        assert read_labels(file, ["a.jpg", "b.jpg"], None, 2) == [1, 0]

    def test_wrong_csv_files_raise_value_error(self, tmp_path):
        file = self.write_csv(tmp_path, [("a.jpg", "0"), ("b.jpg", "5"), ("c.jpg", "rose")])
        a, b, c, d = (str(tmp_path / f"{name}.jpg") for name in "abcd")
        with pytest.raises(ValueError, match=r"d\.jpg has no class in .*labels\.csv"):
            read_labels(file, [a, d], None, 3)
        with pytest.raises(ValueError, match="class '5', but the model has no class names: give numbers from 0 to 2"):
            read_labels(file, [a, b], None, 3)
        with pytest.raises(ValueError, match="'rose' is not known. Did you mean 'roses'"):
            read_labels(file, [a, c], ("roses", "lilies", "oaks"), 3)
        with pytest.raises(ValueError, match="absent.csv is not a file"):
            read_labels(str(tmp_path / "absent.csv"), [a], None, 3)
        file = self.write_csv(tmp_path, [("a.jpg", "0", "1")])
        with pytest.raises(ValueError, match="3 fields"):
            read_labels(file, [a], None, 3)
        Path(file).write_bytes(b"a.jpg,caf\xe9\n")
        with pytest.raises(ValueError, match="labels.csv is not a UTF-8 text file"):
            read_labels(file, [a], None, 3)

    def test_labels_require_classifier(self, photos, tmp_path):
        body = create_mobilenetv4(TINY, input_shape=(SIZE, SIZE, 3), include_top=False)
        body.save(tmp_path / "body.keras")
        options = ("--calibrate", str(photos), "--labels", "folders")
        message = run("export", str(tmp_path / "body.keras"), str(tmp_path / "a.onnx"), *options, code=2).stderr
        assert "--labels is for classifiers" in plain(message)
