"""`mobilenet-zoo evaluate` and `mobilenet-zoo explain`, as a user runs them."""

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
from tests.test_cli import KERAS, as_program, plain, run

pytestmark = pytest.mark.across


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a model with names."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = seeded.randomized(create_mobilenetv4(HYBRID, 5, (32, 32, 3)))
    return mobilenet_zoo.save_pretrained(model, folder, class_names=made.NAMES)


@pytest.fixture
def photos(tmp_path):
    made.folder(tmp_path / "photos")
    return tmp_path / "photos"


class TestEvaluate:
    def test_a_keras_model(self, saved, photos, tmp_path):
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
        assert text.count('alt="Where the model saw') == mistakes > 0
        assert "loss by epoch" in text and "Grad-CAM" in text

    def test_an_exported_file_in_a_table(self, photos, tmp_path):
        path = made.exported("onnx", tmp_path)
        said = run("evaluate", str(path), str(photos), "--batch-size", "5").stdout
        paths = sorted(photos.glob("*/*.png"))
        labels = [made.NAMES.index(path.parent.name) for path in paths]
        top1 = accuracy_score(labels, made.expected(paths).argmax(1))
        rows = dict(line.rsplit(maxsplit=1) for line in said.splitlines())
        assert rows["top-1"] == f"{top1:.2%}" and rows["images"] == "12"
        assert {"log loss", "ECE", "images per second", "latency, batch 1 (ms)"} <= rows.keys()
        assert "top-5" not in rows  # of five classes

    @pytest.mark.parametrize("kind", ["tflite", "onnx"])
    def test_neither_keras_nor_a_backend_is_needed(self, kind, photos, tmp_path):
        path, report = made.exported(kind, tmp_path), tmp_path / "report.html"
        said = as_program("evaluate", path, photos, "-o", report, "--json", home=tmp_path, missing=KERAS)
        assert json.loads(said)["images"] == 12
        text = report.read_text("utf-8")
        assert 'alt="An image of' in text and "Grad-CAM" not in text

    def test_the_answers_are_kept_for_a_student(self, photos, tmp_path):
        path, answers = made.exported("onnx", tmp_path), tmp_path / "answers.npz"
        run("evaluate", str(path), str(photos), "--predictions", str(answers))
        paths = sorted(photos.glob("*/*.png"))[::-1]
        found = read_predictions(answers, paths, made.NAMES)
        np.testing.assert_allclose(found, made.expected(paths), atol=1e-5)

    def test_damaged_images_are_told_and_skipped(self, photos, tmp_path):
        next(photos.glob("*/*.png")).write_bytes(b"damaged")
        result = run("evaluate", str(made.exported("onnx", tmp_path)), str(photos), code=1)
        assert "can't be read" in plain(result.stderr) and "1 of the images could not be read" in plain(result.stderr)
        assert "images 11" in plain(result.stdout)

    def test_without_a_pool_the_report_has_no_heat(self, photos, tmp_path):
        import keras

        body = create_mobilenetv4(HYBRID, input_shape=(32, 32, 3), include_top=False)
        dense = keras.layers.Dense(5, activation="softmax")(keras.layers.Flatten()(body.output))
        keras.Model(body.input, dense, name="flat").save(tmp_path / "flat.keras")
        result = run("evaluate", str(tmp_path / "flat.keras"), str(photos), "-o", str(tmp_path / "r.html"))
        assert "Without heat maps: 'flat' can't be explained" in plain(result.stderr)
        assert "Confusions" in (tmp_path / "r.html").read_text("utf-8")

    def test_bad_input(self, saved, photos, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        def message_of(*arguments):
            return plain(run("evaluate", *map(str, arguments), code=2).stderr)

        path = made.exported("onnx", tmp_path)
        assert "--output=r.txt" in message_of(path, photos, "-o", "r.txt")
        assert "--predictions=p.csv" in message_of(path, photos, "--predictions", "p.csv")
        assert "--batch-size=0" in message_of(path, photos, "-b", "0")
        assert "--history is for the report" in message_of(path, photos, "--history", "log.csv")
        assert "It is not split" in message_of(path, photos, "--split", "test")
        assert "absent does not exist" in message_of(path, tmp_path / "absent")
        (photos / "oak").rename(photos / "tulip")
        assert "doesn't know 'tulip'" in message_of(path, photos)


class TestExplain:
    def test_one_image(self, saved, tmp_path):
        photographs.photograph().save(tmp_path / "china.png")
        heat = tmp_path / "new" / "heat.png"
        said = plain(run("explain", str(tmp_path / "china.png"), "-m", str(saved), "-o", str(heat)).stdout)
        expected = explain(mobilenet_zoo.from_pretrained(saved), tmp_path / "china.png")
        np.testing.assert_array_equal(np.asarray(Image.open(heat)), np.asarray(expected.overlay))
        assert f"{made.NAMES[expected.class_index]} ({expected.probability:.1%})" in said

    def test_several_of_a_class(self, saved, tmp_path):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            photographs.photograph().save(tmp_path / folder / "china.png")
        (tmp_path / "a" / "damaged.png").write_bytes(b"damaged")
        given = [str(tmp_path / folder) for folder in ("a", "b")]
        result = run("explain", *given, "-m", str(saved), "--class", "elm", "-o", str(tmp_path / "heat"), code=1)
        assert sorted(path.name for path in (tmp_path / "heat").iterdir()) == ["china-2.png", "china.png"]
        expected = explain(mobilenet_zoo.from_pretrained(saved), tmp_path / "a" / "china.png", 3)
        found = np.asarray(Image.open(tmp_path / "heat" / "china.png"))
        np.testing.assert_array_equal(found, np.asarray(expected.overlay))
        assert "damaged.png can't be read" in plain(result.stderr)

    def test_bad_input(self, saved, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        photographs.photograph().save(tmp_path / "china.png")

        def message_of(*arguments, model=saved, output="heat.png"):
            given = (tmp_path / "china.png", *arguments, "-m", model, "-o", output)
            return plain(run("explain", *map(str, given), code=2).stderr)

        assert "--class='elf' is not known. Did you mean 'elm'" in message_of("--class", "elf")
        assert "--output=heat.png is one file, but there are 2 images" in message_of(tmp_path / "absent.png")
        assert "which gives no gradients" in message_of(model=made.exported("onnx", tmp_path))
        assert not (tmp_path / "heat.png").exists()
