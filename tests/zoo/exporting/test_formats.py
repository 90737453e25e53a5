"""export: files of every format answer as their model does."""

from pathlib import Path

import keras
import numpy as np
import pytest

import mobilenet_runtime
import mobilenet_zoo
from mobilenet_zoo.exporting import export_all, process
from mobilenet_zoo.exporting.formats import FORMATS
from tests.zoo.exporting import shared
from tests.zoo.exporting.shared import PLACES, SIZE, answers, images, left, relative, tiny

pytestmark = pytest.mark.across


@pytest.fixture(scope="module")
def v4():
    return shared.known(shared.learned(tiny(norm_momentum=0.0), images(8)))


@pytest.fixture(scope="module")
def written(v4, tmp_path_factory):
    """`{format: (file, report)}` of a small MobileNetV4, each written by a process of its backend."""
    folder = tmp_path_factory.mktemp("written")
    reports = list(export_all(v4, {folder / name: None for name in PLACES.values()}))
    assert left(folder) == sorted([*PLACES.values(), "a.bin"]), "and nothing that was needed on the way"
    return {report.format: (Path(report.path), report) for report in reports}


@pytest.mark.parametrize("format", FORMATS)
class TestEveryFormat:
    def test_the_file_answers_as_the_model(self, format, v4, written):
        path, report = written[format]
        assert report.deviation <= 1e-4
        assert report.agreement == 1
        loaded = mobilenet_runtime.load(path)
        x = images()
        assert relative(loaded(x), answers(v4, x)) <= 1e-4
        assert answers(v4, x).std(0).max() > 1e-2, "images make a difference"

    def test_what_the_file_knows(self, format, written):
        path, _ = written[format]
        found = mobilenet_runtime.load(path).metadata
        last = format in ("litert", "saved_model")
        assert found.layout == ("NHWC" if last else "NCHW")
        assert found.class_names == shared.NAMES
        assert (found.size, found.channels) == ((SIZE, SIZE), 3)
        assert (found.crop, found.interpolation) == (0.9, "bilinear")
        assert (found.mean, found.std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
        assert found.gives == "probabilities"
        assert found.source == "mobilenetv4_conv_small.e2400_r224_in1k"
        assert found.license == "Apache-2.0"

    def test_what_the_report_says(self, format, written):
        path, report = written[format]
        files = [path, path.with_suffix(".bin")] if format == "openvino" else [path]
        files = [each for file in files for each in ([file] if file.is_file() else file.rglob("*")) if each.is_file()]
        assert report.bytes == sum(len(file.read_bytes()) for file in files)
        assert report.input_shape == ((1, SIZE, SIZE, 3) if report.layout == "NHWC" else (1, 3, SIZE, SIZE))
        assert report.operation_count == sum(report.operations.values()) > 20
        assert report.latency_ms > 0
        text = str(report)
        assert all(word in text for word in (str(path), report.runtime, "deviation", "computed by"))
        assert report.as_dict()["operation_count"] == report.operation_count


def test_v3_from_pixels_to_logits(tmp_path, monkeypatch):
    """Two images at a time."""
    monkeypatch.setattr(process, "run", shared.here)
    model = shared.known(shared.small_v3())
    x = images(5)
    mean, std = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.25, 0.3])
    options = {"batch_size": 2, "include_preprocessing": True, "include_softmax": False}
    report = mobilenet_zoo.export(model, tmp_path / "a.onnx", **options)
    assert report.deviation <= 1e-4
    assert report.operations["HardSwish"] == 19
    assert not {"Transpose", "BatchNormalization"} & report.operations.keys()
    file = mobilenet_runtime.load(report.path)
    assert (file.batch_size, file.metadata.gives, file.metadata.mean) == (2, "logits", None)
    logits = file((x * std + mean) * 255)
    powers = np.exp(logits)
    assert relative(powers / powers.sum(1, keepdims=True), answers(model, x)) <= 1e-4
    assert logits.min() < 0
    assert answers(model, x).std(0).max() > 1e-2, "images make a difference"


def test_several_outputs_keep_their_names(tmp_path, monkeypatch):
    """Also where their names are in no order."""
    monkeypatch.setattr(process, "run", shared.here)
    body = tiny(include_top=False)
    early, late = body.get_layer("stage1_block2").output, body.get_layer("stage2_block2").output
    model = keras.Model(body.input, {"late": 2.0 * late, "early": early})
    (report,) = export_all(model, {tmp_path / "a.onnx": None})
    found = mobilenet_runtime.load(report.path)(images())
    expected = answers(model, images())
    assert set(found) == {"early", "late"}
    for name in expected:
        assert relative(found[name], expected[name]) <= 1e-4


def test_a_model_in_mixed_precision_leaves_in_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", shared.here)
    (report,) = export_all(tiny(dtype="mixed_bfloat16"), {tmp_path / "a.onnx": None})
    assert report.deviation <= 1e-4
