"""`export`: files that deviate from their model are rejected."""

from pathlib import Path

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.errors import ExportError
from mobilenet_zoo.exporting import process, session
from mobilenet_zoo.exporting.verification import compare, first_deviation
from tests.zoo.exporting import shared
from tests.zoo.exporting.shared import fail_if_called, names_in

pytestmark = pytest.mark.across


def save_changed_model(model_file, layer="stage2_block2"):
    """Save a copy of the model with another kernel in one block; return the path of the copy."""
    model = keras.saving.load_model(model_file, compile=False)
    kernel = next(weight for weight in model.get_layer(layer).weights if weight.path.endswith("kernel"))
    kernel.assign(-1.5 * keras.ops.convert_to_numpy(kernel))
    path = Path(model_file).with_name("changed.keras")
    model.save(path)
    return path


def run_with_changed_model(backend, model_file, modules, jobs, folder):
    """Replace `process.run`: write a model that differs in one block."""
    return shared.run_here(backend, save_changed_model(model_file), modules, jobs, folder)


@pytest.fixture(scope="module")
def rejection(model, tmp_path_factory):
    """Return `(path, error)` of an export to an existing file that was rejected because it deviates."""
    folder = tmp_path_factory.mktemp("wrong")
    path = folder / "a.onnx"
    path.write_bytes(b"old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "run", run_with_changed_model)
        with pytest.raises(ExportError) as caught:
            mobilenet_zoo.export(model, path)
    return path, caught.value


def test_deviating_file_is_rejected_and_kept(rejection):
    path, error = rejection
    assert path.read_bytes() == b"old"
    assert names_in(path.parent) == ["a.onnx", "a.onnx.rejected"]
    assert error.rejected == f"{path}.rejected"
    assert error.report.deviation > 1e-3
    assert f"The file is kept as {error.rejected}" in str(error)
    assert str(error).startswith(f"{path} was not written: the output of ONNX Runtime ")


def test_error_names_the_first_deviating_block(rejection):
    _, error = rejection
    assert error.block == "stage2_block2"
    assert "The first layer that deviates is stage2_block2, by " in str(error)


def copy_rejected_file(rejection, tmp_path):
    """Copy the rejected file to a name that can be loaded; return the path."""
    _, error = rejection
    path = tmp_path / "rejected.onnx"
    path.write_bytes(Path(error.rejected).read_bytes())
    return path


def test_verify_false_skips_the_verification(rejection, model, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", shared.run_that_copies(copy_rejected_file(rejection, tmp_path)))
    monkeypatch.setattr(session, "measure", fail_if_called)
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    report = mobilenet_zoo.export(model, path, verify=False)
    assert path.read_bytes() == (tmp_path / "rejected.onnx").read_bytes()
    assert (report.deviation, report.runtime, report.operation_count) == (None, None, None)
    assert "deviation" not in str(report)


def test_verify_sets_the_allowed_deviation(rejection, model, tmp_path, monkeypatch):
    _, error = rejection
    deviation = error.report.deviation
    monkeypatch.setattr(process, "run", shared.run_that_copies(copy_rejected_file(rejection, tmp_path)))
    report = mobilenet_zoo.export(model, tmp_path / "a.onnx", verify=1.01 * deviation)
    assert report.deviation == pytest.approx(deviation)
    (tmp_path / "a.onnx").unlink()
    with pytest.raises(ExportError, match="deviates from the model"):
        mobilenet_zoo.export(model, tmp_path / "a.onnx", verify=0.99 * deviation)
    assert names_in(tmp_path) == ["a.onnx.rejected", "rejected.onnx"]


@pytest.mark.parametrize("quantization", [None, "dynamic"])
def test_deviating_file_is_kept_if_blocks_are_not_available(quantization, rejection, model, tmp_path, monkeypatch):
    source = copy_rejected_file(rejection, tmp_path)

    def run(backend, model_file, modules, jobs, folder):
        if jobs[0].blocks:
            raise ExportError("no memory is left.")
        return shared.run_that_copies(source)(backend, model_file, modules, jobs, folder)

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr("mobilenet_zoo.exporting.verification._MIN_COSINE_SIMILARITY", 1.1)
    with pytest.raises(ExportError, match="deviates from the model") as caught:
        mobilenet_zoo.export(model, tmp_path / "a.onnx", quantization=quantization)
    assert ("no memory is left" in str(caught.value)) == (quantization is None)
    assert caught.value.block is None
    assert names_in(tmp_path) == ["a.onnx.rejected", "rejected.onnx"]


def test_file_that_the_runtime_cannot_load_is_rejected(model, existing_file, monkeypatch):
    monkeypatch.setattr(process, "run", shared.write_dummy_files)
    with pytest.raises(ExportError, match=r"a.onnx was not written: ONNX Runtime .* can't load .*kept as") as caught:
        mobilenet_zoo.export(model, existing_file)
    assert Path(caught.value.rejected).read_bytes() == b"new"
    Path(caught.value.rejected).unlink()


# Comparison of outputs


def test_compare_probabilities():
    expected = np.float32([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [0.5, 0.4]])
    outputs = np.float32([[0.1, 0.9], [0.8, 0.2], [0.3, 0.6], [0.5, 0.4]])
    comparison = compare([outputs], [expected], np.array([1, 0, 1, 1]))
    assert comparison.deviation == pytest.approx(0.3 / 0.9)
    assert (comparison.agreement, comparison.accuracy, comparison.expected_accuracy) == (0.75, 0.75, 0.5)
    third = (0.3 * 0.6 + 0.6 * 0.4) / np.hypot(0.3, 0.6) / np.hypot(0.6, 0.4)
    assert comparison.cosine_similarity == pytest.approx((3 + third) / 4)


def test_compare_features():
    expected = [np.ones((2, 4, 4, 3), "float32"), np.full((2, 2, 2, 3), 10, "float32")]
    comparison = compare([expected[0], expected[1] + 0.5], expected)
    assert comparison.deviation == pytest.approx(0.05)
    assert comparison.agreement is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_never_right(value):
    outputs = np.float32([[0.1, value]])
    for quantization in (None, "float16", "dynamic", "int8"):
        comparison = compare([outputs], [np.float32([[0.1, 0.9]])])
        assert not comparison.is_right(quantization)
        assert not comparison.is_right(quantization, allowed=1e9)


def test_allowed_deviation_depends_on_quantization():
    expected = np.float32([[1.0, 0.0]])
    deviating = lambda by: compare([expected + np.float32([[0, by]])], [expected])  # noqa: E731
    assert deviating(1e-4).is_right(None)
    assert not deviating(3e-4).is_right(None)
    assert deviating(3e-4).is_right("float16")
    assert not deviating(0.06).is_right("float16")
    assert deviating(0.06).is_right("int8")
    assert not deviating(1.0).is_right("int8"), "the cosine similarity is 0.71"
    assert not deviating(0.06).is_right("int8", allowed=0.05)


def test_first_deviation_follows_the_order_of_layers():
    expected = {"a": np.ones(3), "b": np.ones(3), "c": np.ones(3), "d": np.ones(3)}
    outputs = {"d": np.zeros(3), "c": np.full(3, 1.1), "a": np.full(3, 1.001), "b": np.full(3, 1.01)}
    assert first_deviation(outputs, expected, 0.05) == ("c", pytest.approx(0.1))
    assert first_deviation(outputs, expected, 0.005)[0] == "b"
    assert first_deviation(outputs, expected, 2) is None
    assert first_deviation({"b": np.full(3, np.nan)}, expected, 2) == ("b", float("inf"))
    assert first_deviation({"c": np.ones(4)}, expected, 2) == ("c", float("inf"))
