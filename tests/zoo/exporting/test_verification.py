"""export: files that answer otherwise than their model never take a place."""

from pathlib import Path

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.errors import ExportError
from mobilenet_zoo.exporting import process, session
from mobilenet_zoo.exporting.verification import compare, first_departure
from tests.zoo.exporting import shared
from tests.zoo.exporting.shared import left, no_process

pytestmark = pytest.mark.across


def changed(model_file, layer="stage2_block2"):
    """The saved model with another kernel in one block."""
    model = keras.saving.load_model(model_file, compile=False)
    kernel = next(weight for weight in model.get_layer(layer).weights if weight.path.endswith("kernel"))
    kernel.assign(-1.5 * keras.ops.convert_to_numpy(kernel))
    path = Path(model_file).with_name("changed.keras")
    model.save(path)
    return path


def of_another_model(backend, model_file, modules, jobs, folder):
    """In place of `process.run`: writes a model that differs in one block."""
    return shared.here(backend, changed(model_file), modules, jobs, folder)


@pytest.fixture(scope="module")
def wrong(model, tmp_path_factory):
    """`(file, error)` of an export that went wrong, beside a file that was there before."""
    folder = tmp_path_factory.mktemp("wrong")
    path = folder / "a.onnx"
    path.write_bytes(b"old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "run", of_another_model)
        with pytest.raises(ExportError) as caught:
            mobilenet_zoo.export(model, path)
    return path, caught.value


def test_a_wrong_file_is_set_aside(wrong):
    path, error = wrong
    assert path.read_bytes() == b"old"
    assert left(path.parent) == ["a.onnx", "a.onnx.rejected"]
    assert error.rejected == f"{path}.rejected"
    assert error.report.deviation > 1e-3
    assert f"The file is kept as {error.rejected}" in str(error)
    assert str(error).startswith(f"{path} was not written: the output of ONNX Runtime ")


def test_the_block_is_named_that_is_wrong(wrong):
    _, error = wrong
    assert error.block == "stage2_block2"
    assert "The first layer that deviates is stage2_block2, by " in str(error)


def rejected(wrong, tmp_path):
    """The wrong file under a name that can be loaded."""
    _, error = wrong
    path = tmp_path / "rejected.onnx"
    path.write_bytes(Path(error.rejected).read_bytes())
    return path


def test_without_verification_nobody_looks(wrong, model, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", shared.copying(rejected(wrong, tmp_path)))
    monkeypatch.setattr(session, "measure", no_process)
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    report = mobilenet_zoo.export(model, path, verify=False)
    assert path.read_bytes() == (tmp_path / "rejected.onnx").read_bytes()
    assert (report.deviation, report.runtime, report.operation_count) == (None, None, None)
    assert "deviation" not in str(report)


def test_a_number_says_what_is_allowed(wrong, model, tmp_path, monkeypatch):
    _, error = wrong
    deviation = error.report.deviation
    monkeypatch.setattr(process, "run", shared.copying(rejected(wrong, tmp_path)))
    report = mobilenet_zoo.export(model, tmp_path / "a.onnx", verify=1.01 * deviation)
    assert report.deviation == pytest.approx(deviation)
    (tmp_path / "a.onnx").unlink()
    with pytest.raises(ExportError, match="deviates from the model"):
        mobilenet_zoo.export(model, tmp_path / "a.onnx", verify=0.99 * deviation)
    assert left(tmp_path) == ["a.onnx.rejected", "rejected.onnx"]


@pytest.mark.parametrize("quantization", [None, "dynamic"])
def test_a_wrong_file_is_kept_if_its_blocks_can_not_be_had(quantization, wrong, model, tmp_path, monkeypatch):
    source = rejected(wrong, tmp_path)

    def run(backend, model_file, modules, jobs, folder):
        if jobs[0].blocks:
            raise ExportError("no memory is left.")
        return shared.copying(source)(backend, model_file, modules, jobs, folder)

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr("mobilenet_zoo.exporting.verification._LEAST_LIKENESS", 1.1)
    with pytest.raises(ExportError, match="deviates from the model") as caught:
        mobilenet_zoo.export(model, tmp_path / "a.onnx", quantization=quantization)
    assert ("no memory is left" in str(caught.value)) == (quantization is None)
    assert caught.value.block is None
    assert left(tmp_path) == ["a.onnx.rejected", "rejected.onnx"]


def test_a_file_that_its_runtime_refuses(model, old, monkeypatch):
    monkeypatch.setattr(process, "run", shared.nothing)
    with pytest.raises(ExportError, match=r"a.onnx was not written: ONNX Runtime .* refuses .*kept as") as caught:
        mobilenet_zoo.export(model, old)
    assert Path(caught.value.rejected).read_bytes() == b"new"
    Path(caught.value.rejected).unlink()


# Comparing


def test_comparing_classes():
    expected = np.float32([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [0.5, 0.4]])
    found = np.float32([[0.1, 0.9], [0.8, 0.2], [0.3, 0.6], [0.5, 0.4]])
    comparison = compare([found], [expected], np.array([1, 0, 1, 1]))
    assert comparison.deviation == pytest.approx(0.3 / 0.9)
    assert (comparison.agreement, comparison.accuracy, comparison.expected_accuracy) == (0.75, 0.75, 0.5)
    third = (0.3 * 0.6 + 0.6 * 0.4) / np.hypot(0.3, 0.6) / np.hypot(0.6, 0.4)
    assert comparison.likeness == pytest.approx((3 + third) / 4)


def test_comparing_features():
    expected = [np.ones((2, 4, 4, 3), "float32"), np.full((2, 2, 2, 3), 10, "float32")]
    comparison = compare([expected[0], expected[1] + 0.5], expected)
    assert comparison.deviation == pytest.approx(0.05)
    assert comparison.agreement is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_never_right(value):
    found = np.float32([[0.1, value]])
    for quantization in (None, "float16", "dynamic", "int8"):
        comparison = compare([found], [np.float32([[0.1, 0.9]])])
        assert not comparison.is_right(quantization)
        assert not comparison.is_right(quantization, allowed=1e9)


def test_what_is_allowed():
    expected = np.float32([[1.0, 0.0]])
    off = lambda by: compare([expected + np.float32([[0, by]])], [expected])  # noqa: E731
    assert off(1e-4).is_right(None)
    assert not off(3e-4).is_right(None)
    assert off(3e-4).is_right("float16")
    assert not off(0.06).is_right("float16")
    assert off(0.06).is_right("int8")
    assert not off(1.0).is_right("int8"), "a cosine of 0.71"
    assert not off(0.06).is_right("int8", allowed=0.05)


def test_the_first_departure_is_found_in_order():
    expected = {"a": np.ones(3), "b": np.ones(3), "c": np.ones(3), "d": np.ones(3)}
    found = {"d": np.zeros(3), "c": np.full(3, 1.1), "a": np.full(3, 1.001), "b": np.full(3, 1.01)}
    assert first_departure(found, expected, 0.05) == ("c", pytest.approx(0.1))
    assert first_departure(found, expected, 0.005)[0] == "b"
    assert first_departure(found, expected, 2) is None
    assert first_departure({"b": np.full(3, np.nan)}, expected, 2) == ("b", float("inf"))
    assert first_departure({"c": np.ones(4)}, expected, 2) == ("c", float("inf"))
