"""`export`: files of every format predict the same as their model."""

from pathlib import Path

import keras
import numpy as np
import pytest

import mobilenet_runtime
import mobilenet_zoo
from mobilenet_zoo.exporting import export_all, process
from mobilenet_zoo.exporting.formats import FORMATS
from tests.zoo.exporting import shared
from tests.zoo.exporting.shared import FILE_NAMES, SIZE, images, names_in, predict, relative_deviation, tiny

pytestmark = pytest.mark.across


@pytest.fixture(scope="module")
def v4():
    return shared.with_facts(shared.with_batch_statistics(tiny(norm_momentum=0.0), images(8)))


@pytest.fixture(scope="module")
def exported_files(v4, tmp_path_factory):
    """Return `{format: (path, report)}` of a small MobileNetV4; a process of each backend writes the files."""
    folder = tmp_path_factory.mktemp("written")
    reports = list(export_all(v4, {folder / name: None for name in FILE_NAMES.values()}))
    assert names_in(folder) == sorted([*FILE_NAMES.values(), "a.bin"]), "no temporary files are left"
    return {report.format: (Path(report.path), report) for report in reports}


@pytest.mark.parametrize("format", FORMATS)
class TestEveryFormat:
    def test_file_predicts_the_same_as_the_model(self, format, v4, exported_files):
        path, report = exported_files[format]
        assert report.deviation <= 1e-4
        assert report.agreement == 1
        loaded = mobilenet_runtime.load(path)
        x = images()
        assert relative_deviation(loaded(x), predict(v4, x)) <= 1e-4
        assert predict(v4, x).std(0).max() > 1e-2, "the outputs must depend on the images"

    def test_file_has_the_metadata_of_the_model(self, format, exported_files):
        path, _ = exported_files[format]
        metadata = mobilenet_runtime.load(path).metadata
        is_channels_last = format in ("litert", "saved_model")
        assert metadata.layout == ("NHWC" if is_channels_last else "NCHW")
        assert metadata.class_names == shared.NAMES
        assert (metadata.size, metadata.channels) == ((SIZE, SIZE), 3)
        assert (metadata.crop, metadata.interpolation) == (0.9, "bilinear")
        assert (metadata.mean, metadata.std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
        assert metadata.gives == "probabilities"
        assert metadata.source == "mobilenetv4_conv_small.e2400_r224_in1k"
        assert metadata.license == "Apache-2.0"

    def test_report_describes_the_file(self, format, exported_files):
        path, report = exported_files[format]
        files = [path, path.with_suffix(".bin")] if format == "openvino" else [path]
        files = [part for file in files for part in ([file] if file.is_file() else file.rglob("*")) if part.is_file()]
        assert report.bytes == sum(len(file.read_bytes()) for file in files)
        assert report.input_shape == ((1, SIZE, SIZE, 3) if report.layout == "NHWC" else (1, 3, SIZE, SIZE))
        assert report.operation_count == sum(report.operations.values()) > 20
        assert report.latency_ms > 0
        text = str(report)
        assert all(word in text for word in (str(path), report.runtime, "deviation", "placement"))
        assert report.as_dict()["operation_count"] == report.operation_count


def test_file_takes_pixels_in_batches_and_returns_logits(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", shared.run_here)
    model = shared.with_facts(shared.small_v3())
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
    exponentials = np.exp(logits)
    assert relative_deviation(exponentials / exponentials.sum(1, keepdims=True), predict(model, x)) <= 1e-4
    assert logits.min() < 0
    assert predict(model, x).std(0).max() > 1e-2, "the outputs must depend on the images"


def test_outputs_keep_their_names(tmp_path, monkeypatch):
    """The names don't need to be in alphabetical order."""
    monkeypatch.setattr(process, "run", shared.run_here)
    body = tiny(include_top=False)
    early, late = body.get_layer("stage1_block2").output, body.get_layer("stage2_block2").output
    model = keras.Model(body.input, {"late": 2.0 * late, "early": early})
    (report,) = export_all(model, {tmp_path / "a.onnx": None})
    outputs = mobilenet_runtime.load(report.path)(images())
    expected = predict(model, images())
    assert set(outputs) == {"early", "late"}
    for name in expected:
        assert relative_deviation(outputs[name], expected[name]) <= 1e-4


def test_mixed_precision_model_is_exported_in_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", shared.run_here)
    (report,) = export_all(tiny(dtype="mixed_bfloat16"), {tmp_path / "a.onnx": None})
    assert report.deviation <= 1e-4
