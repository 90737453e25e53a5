"""`mobilenet-zoo evaluate` and `mobilenet-zoo explain`, run as on the command line."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss

import mobilenet_zoo
from mobilenet_runtime.evaluation import read_predictions
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.evaluation import explain
from tests import photographs, seeded
from tests.evaluation import made
from tests.evaluation.test_gradcam import HYBRID
from tests.test_cli import KERAS, plain, run, run_as_program

pytestmark = pytest.mark.across


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of a saved model with class names."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = seeded.randomized(create_mobilenetv4(HYBRID, 5, (32, 32, 3)))
    return mobilenet_zoo.save_pretrained(model, folder, class_names=made.NAMES)


@pytest.fixture
def photos(tmp_path):
    made.folder(tmp_path / "photos")
    return tmp_path / "photos"


class TestEvaluate:
    def test_keras_model_is_evaluated(self, saved, photos, tmp_path):
        report = tmp_path / "report.html"
        (tmp_path / "log.csv").write_text("epoch,loss\n0,1.0\n1,0.5\n")
        history = ["--history", str(tmp_path / "log.csv")]
        record = json.loads(run("evaluate", str(saved), str(photos), "-o", str(report), *history, "--json").stdout)
        model = mobilenet_zoo.from_pretrained(saved)
        paths = sorted(photos.glob("*/*.png"))
        values = model.predict(mobilenet_zoo.preprocessing(model)(paths), verbose=0)
        labels = [made.NAMES.index(path.parent.name) for path in paths]
        assert record["top1"] == accuracy_score(labels, values.argmax(1)) and record["images"] == 12
        assert record["log_loss"] == pytest.approx(log_loss(labels, values, labels=range(5)), rel=1e-4)
        profile = mobilenet_zoo.profile(model)
        assert record["costs"] == {"parameters": profile.parameters, "macs": profile.macs}
        assert record["speed"]["latency_ms"] > 0 and record["speed"]["latency_batch"] == 1
        text = report.read_text("utf-8")
        mistakes = min(12, sum(values.argmax(1) != labels))
        assert text.count('alt="A heatmap of') == mistakes > 0
        assert "loss by epoch" in text and "Grad-CAM" in text

    def test_exported_file_prints_a_table(self, photos, tmp_path):
        path = made.exported("onnx", tmp_path)
        output = run("evaluate", str(path), str(photos), "--batch-size", "5").stdout
        paths = sorted(photos.glob("*/*.png"))
        labels = [made.NAMES.index(path.parent.name) for path in paths]
        top1 = accuracy_score(labels, made.expected(paths).argmax(1))
        rows = dict(line.rsplit(maxsplit=1) for line in output.splitlines())
        assert rows["top-1"] == f"{top1:.2%}" and rows["images"] == "12"
        assert {"log loss", "ECE", "images per second", "latency, batch 1 (ms)"} <= rows.keys()
        assert "top-5" not in rows  # omitted for five classes

    @pytest.mark.parametrize("kind", ["tflite", "onnx"])
    def test_exported_file_needs_neither_keras_nor_a_backend(self, kind, photos, tmp_path):
        path, report = made.exported(kind, tmp_path), tmp_path / "report.html"
        output = run_as_program("evaluate", path, photos, "-o", report, "--json", home=tmp_path, missing=KERAS)
        assert json.loads(output)["images"] == 12
        text = report.read_text("utf-8")
        assert 'alt="An image of' in text and "Grad-CAM" not in text

    def test_predictions_are_saved(self, photos, tmp_path):
        path, predictions = made.exported("onnx", tmp_path), tmp_path / "predictions.npz"
        run("evaluate", str(path), str(photos), "--predictions", str(predictions))
        paths = sorted(photos.glob("*/*.png"))[::-1]
        actual = read_predictions(predictions, paths, made.NAMES)
        np.testing.assert_allclose(actual, made.expected(paths), atol=1e-5)

    def test_damaged_images_are_reported_and_skipped(self, photos, tmp_path):
        next(photos.glob("*/*.png")).write_bytes(b"damaged")
        result = run("evaluate", str(made.exported("onnx", tmp_path)), str(photos), code=1)
        assert "can't be read" in plain(result.stderr) and "1 of the images could not be read" in plain(result.stderr)
        assert "images 11" in plain(result.stdout)

    def test_report_of_model_without_pooling_has_no_heat_maps(self, photos, tmp_path):
        import keras

        body = create_mobilenetv4(HYBRID, input_shape=(32, 32, 3), include_top=False)
        dense = keras.layers.Dense(5, activation="softmax")(keras.layers.Flatten()(body.output))
        keras.Model(body.input, dense, name="flat").save(tmp_path / "flat.keras")
        result = run("evaluate", str(tmp_path / "flat.keras"), str(photos), "-o", str(tmp_path / "r.html"))
        assert "No heat maps in the report: 'flat' can't be explained" in plain(result.stderr)
        assert "Confusions" in (tmp_path / "r.html").read_text("utf-8")

    def test_bad_input_exits_with_an_error(self, saved, photos, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        def error_of(*arguments):
            return plain(run("evaluate", *map(str, arguments), code=2).stderr)

        path = made.exported("onnx", tmp_path)
        assert "--output=r.txt" in error_of(path, photos, "-o", "r.txt")
        assert "--predictions=p.csv" in error_of(path, photos, "--predictions", "p.csv")
        assert "--batch-size=0" in error_of(path, photos, "-b", "0")
        assert "--history is for the report" in error_of(path, photos, "--history", "log.csv")
        assert "It has no splits" in error_of(path, photos, "--split", "test")
        assert "absent does not exist" in error_of(path, tmp_path / "absent")
        (photos / "oak").rename(photos / "tulip")
        assert "classes: 'tulip'" in error_of(path, photos)


class TestExplain:
    def test_one_image_is_explained(self, saved, tmp_path):
        photographs.photograph().save(tmp_path / "china.png")
        overlay = tmp_path / "new" / "heat.png"
        output = plain(run("explain", str(tmp_path / "china.png"), "-m", str(saved), "-o", str(overlay)).stdout)
        expected = explain(mobilenet_zoo.from_pretrained(saved), tmp_path / "china.png")
        np.testing.assert_array_equal(np.asarray(Image.open(overlay)), np.asarray(expected.overlay))
        assert f"{made.NAMES[expected.class_index]} ({expected.probability:.1%})" in output

    def test_several_images_are_explained_for_one_class(self, saved, tmp_path):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            photographs.photograph().save(tmp_path / folder / "china.png")
        (tmp_path / "a" / "damaged.png").write_bytes(b"damaged")
        folders = [str(tmp_path / folder) for folder in ("a", "b")]
        result = run("explain", *folders, "-m", str(saved), "--class", "elm", "-o", str(tmp_path / "heat"), code=1)
        assert sorted(path.name for path in (tmp_path / "heat").iterdir()) == ["china-2.png", "china.png"]
        expected = explain(mobilenet_zoo.from_pretrained(saved), tmp_path / "a" / "china.png", 3)
        overlay = np.asarray(Image.open(tmp_path / "heat" / "china.png"))
        np.testing.assert_array_equal(overlay, np.asarray(expected.overlay))
        assert "damaged.png can't be read" in plain(result.stderr)

    def test_bad_input_exits_with_an_error(self, saved, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        photographs.photograph().save(tmp_path / "china.png")

        def error_of(*arguments, model=saved, output="heat.png"):
            command = (tmp_path / "china.png", *arguments, "-m", model, "-o", output)
            return plain(run("explain", *map(str, command), code=2).stderr)

        assert "--class='elf' is not known. Did you mean 'elm'" in error_of("--class", "elf")
        assert "--output=heat.png is one file, but there are 2 images" in error_of(tmp_path / "absent.png")
        assert "which can't compute gradients" in error_of(model=made.exported("onnx", tmp_path))
        assert not (tmp_path / "heat.png").exists()
