"""`measure` runs an exported file in a child process and reports its failures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mobilenet_runtime
from mobilenet_runtime import Metadata, RuntimeFailure, RuntimeMissing, embed
from mobilenet_runtime import measure as module
from mobilenet_runtime.measure import measure, size_of
from tests.runtime import tiny

pytestmark = pytest.mark.across


@pytest.mark.parametrize("kind", tiny.format_parameters())
def test_record_and_outputs_match_loaded_model(kind, tiny_file):
    path = tiny_file(kind)
    record, outputs = measure(path, tiny.images(5), threads=1, runs=3)
    model = mobilenet_runtime.load(path)
    assert record["runtime"] == model.runtime
    assert record["operations"] == model.operations()
    assert record["placement"] == model.placement()
    assert tuple(record["input_shape"]) == model.input_shape
    assert record["output_names"] == model.output_names == list(outputs)
    assert 0 < record["fastest_ms"] <= record["latency_ms"] < 1e4
    assert 10 < record["peak_memory_mb"] < 1e4
    assert 0 < record["load_s"] < 300
    assert record["metadata"] is None
    expected = tiny.expected(tiny.images(5))
    for name in tiny.OUTPUTS:
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-5)


def test_measuring_without_images_returns_metadata_and_no_outputs(tiny_file, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_file("onnx", batch=2, outputs=("logits",)).read_bytes())
    metadata = Metadata("tiny", None, (8, 8), 3, "NCHW", 1, "bicubic", None, None, "logits")
    embed(path, metadata)
    record, outputs = measure(path, runs=1)
    assert outputs is None
    assert Metadata.from_json(json.dumps(record["metadata"])) == metadata


def test_dynamic_size_is_taken_from_images(tiny_file):
    path = tiny_file("onnx", size=None)
    _, outputs = measure(path, tiny.images(2, 6), runs=1)
    np.testing.assert_allclose(outputs["map"], tiny.expected(tiny.images(2, 6))["map"], atol=1e-5)
    with pytest.raises(ValueError, match="any size"):
        measure(path, runs=1)


def test_output_may_be_named_file(tmp_path):
    module._save(tmp_path / "a.npz", {"file": np.arange(3), "a/b:0": np.ones(2)})
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["file"], [0, 1, 2])
        np.testing.assert_array_equal(arrays["a/b:0"], [1, 1])


class TestFailures:
    def test_wrong_files_and_images_raise_errors(self, tiny_file, tmp_path):
        with pytest.raises(ValueError, match="absent.onnx does not exist"):
            measure(tmp_path / "absent.onnx")
        path = tiny_file("onnx")
        (tmp_path / "damaged.onnx").write_bytes(path.read_bytes()[:99])
        with pytest.raises(RuntimeFailure, match=r"ONNX Runtime .* can't load .*damaged.onnx"):
            measure(tmp_path / "damaged.onnx")
        with pytest.raises(ValueError, match=r"takes \(batch, 8, 8, 3\)"):
            measure(path, tiny.images(1, 9))
        with pytest.raises(ValueError, match=r"must be \(batch, height, width, channels\)"):
            measure(path, np.zeros((8, 8, 3)))

    def test_missing_library_raises_runtime_missing(self, tiny_file, monkeypatch, tmp_path):
        path = tiny_file("onnx")
        (tmp_path / "onnxruntime.py").write_text("raise ImportError('not here')\n")
        monkeypatch.setattr(module, "__file__", str(shadow_modules(tmp_path)))
        with pytest.raises(RuntimeMissing, match=r"onnxruntime, which is not installed \(not here\)"):
            measure(path)

    @pytest.mark.parametrize(
        "code, match",
        [
            ("import os, signal, sys; print('all well'); sys.stderr.write('alas\\n'); sys.stderr.flush(); "
             "os.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV. Its last line of output: alas"),
            ("print('so far', flush=True); raise SystemExit(7)", "exit status 7. Its last line of output: so far"),
            ("raise SystemExit(1)", "exit status 1. Its last line of output: nothing"),
            ("raise SystemExit(0)", "exit status 0"),
            ("import time; print('slowly', flush=True); time.sleep(60)", "within 5 s.*output: slowly"),
        ],
        ids=["crash", "exit", "silence", "no record", "hang"],
    )  # fmt: skip
    def test_child_process_that_dies_or_hangs_raises_runtime_failure(
        self, code, match, tiny_file, monkeypatch, tmp_path
    ):
        path = tiny_file("onnx")
        (tmp_path / "onnxruntime.py").write_text(code + "\n")
        monkeypatch.setattr(module, "__file__", str(shadow_modules(tmp_path)))
        with pytest.raises(RuntimeFailure, match=match) as error:
            measure(path, timeout=5 if "sleep" in code else 60)
        assert str(path) in str(error.value)

    @pytest.mark.parametrize("arguments", [{"runs": 0}, {"threads": 0}, {"timeout": 0}])
    def test_wrong_arguments_raise_value_error(self, arguments):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))}=0"):
            measure("any.onnx", **arguments)


def shadow_modules(folder):
    """Return a path for `measure.py` from which its child process imports the modules in `folder` first."""
    for name in ("mobilenet_runtime", "mobilenet_common"):
        (folder / name).symlink_to(Path(mobilenet_runtime.__file__).resolve().parents[1] / name)
    return folder / "package" / "measure.py"


def test_module_runs_as_program(tiny_file):
    path = tiny_file("onnx")
    command = [sys.executable, "-m", "mobilenet_runtime.measure", str(path), "--runs", "2", "--threads", "1"]
    root = Path(mobilenet_runtime.__file__).resolve().parents[1]
    paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["output_names"] == list(tiny.OUTPUTS)
    assert result.stderr == ""


def test_file_size_includes_weights(tiny_file, tmp_path):
    path = tiny_file("xml")
    assert size_of(path) == path.stat().st_size + path.with_suffix(".bin").stat().st_size
    (tmp_path / "a.onnx").write_bytes(b"1234")
    (tmp_path / "a.onnx.data").write_bytes(b"56")
    assert size_of(tmp_path / "a.onnx") == 6
    assert size_of(tmp_path) == 6
