"""An exported file is measured in a process of its own, and what happens to that is reported."""

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


@pytest.mark.parametrize("kind", tiny.with_slow_ones())
def test_the_record_and_the_answers(kind, written):
    path = written(kind)
    record, answers = measure(path, tiny.images(5), threads=1, runs=3)
    model = mobilenet_runtime.load(path)
    assert record["runtime"] == model.runtime
    assert record["operations"] == model.operations()
    assert record["placement"] == model.placement()
    assert tuple(record["input_shape"]) == model.input_shape
    assert record["output_names"] == model.output_names == list(answers)
    assert 0 < record["fastest_ms"] <= record["latency_ms"] < 1e4
    assert 10 < record["peak_memory_mb"] < 1e4
    assert 0 < record["load_s"] < 300
    assert record["metadata"] is None
    expected = tiny.expected(tiny.images(5))
    for name in tiny.OUTPUTS:
        np.testing.assert_allclose(answers[name], expected[name], atol=1e-5)


def test_without_images_and_with_metadata(written, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(written("onnx", batch=2, outputs=("logits",)).read_bytes())
    metadata = Metadata("tiny", None, (8, 8), 3, "NCHW", 1, "bicubic", None, None, "logits")
    embed(path, metadata)
    record, answers = measure(path, runs=1)
    assert answers is None
    assert Metadata.from_json(json.dumps(record["metadata"])) == metadata


def test_a_free_size_is_that_of_the_images(written):
    path = written("onnx", size=None)
    _, answers = measure(path, tiny.images(2, 6), runs=1)
    np.testing.assert_allclose(answers["map"], tiny.expected(tiny.images(2, 6))["map"], atol=1e-5)
    with pytest.raises(ValueError, match="any size"):
        measure(path, runs=1)


def test_an_output_called_file(tmp_path):
    module._save(tmp_path / "a.npz", {"file": np.arange(3), "a/b:0": np.ones(2)})
    with np.load(tmp_path / "a.npz") as found:
        np.testing.assert_array_equal(found["file"], [0, 1, 2])
        np.testing.assert_array_equal(found["a/b:0"], [1, 1])


class TestFailures:
    def test_what_is_wrong_with_the_file(self, written, tmp_path):
        with pytest.raises(ValueError, match="absent.onnx does not exist"):
            measure(tmp_path / "absent.onnx")
        path = written("onnx")
        (tmp_path / "damaged.onnx").write_bytes(path.read_bytes()[:99])
        with pytest.raises(RuntimeFailure, match=r"ONNX Runtime .* refuses .*damaged.onnx"):
            measure(tmp_path / "damaged.onnx")
        with pytest.raises(ValueError, match=r"takes \(batch, 8, 8, 3\)"):
            measure(path, tiny.images(1, 9))
        with pytest.raises(ValueError, match=r"must be \(batch, height, width, channels\)"):
            measure(path, np.zeros((8, 8, 3)))

    def test_a_library_that_is_missing(self, written, monkeypatch, tmp_path):
        path = written("onnx")
        (tmp_path / "onnxruntime.py").write_text("raise ImportError('not here')\n")
        monkeypatch.setattr(module, "__file__", str(shadowed(tmp_path)))
        with pytest.raises(RuntimeMissing, match=r"onnxruntime, which is not installed \(not here\)"):
            measure(path)

    @pytest.mark.parametrize(
        "code, match",
        [
            ("import os, signal, sys; print('all well'); sys.stderr.write('alas\\n'); sys.stderr.flush(); "
             "os.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV. The last that it printed: alas"),
            ("print('so far', flush=True); raise SystemExit(7)", "exit status 7. The last that it printed: so far"),
            ("raise SystemExit(1)", "exit status 1. The last that it printed: nothing"),
            ("raise SystemExit(0)", "exit status 0"),
            ("import time; print('slowly', flush=True); time.sleep(60)", "within 5 s.*printed: slowly"),
        ],
        ids=["crash", "exit", "silence", "no record", "hang"],
    )  # fmt: skip
    def test_a_child_that_dies_or_hangs(self, code, match, written, monkeypatch, tmp_path):
        path = written("onnx")
        (tmp_path / "onnxruntime.py").write_text(code + "\n")
        monkeypatch.setattr(module, "__file__", str(shadowed(tmp_path)))
        with pytest.raises(RuntimeFailure, match=match) as caught:
            measure(path, timeout=5 if "sleep" in code else 60)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("arguments", [{"runs": 0}, {"threads": 0}, {"timeout": 0}])
    def test_wrong_arguments(self, arguments):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))}=0"):
            measure("any.onnx", **arguments)


def shadowed(folder):
    """A place for `measure` from which its child finds the modules in `folder` before all others."""
    for name in ("mobilenet_runtime", "mobilenet_common"):
        (folder / name).symlink_to(Path(mobilenet_runtime.__file__).resolve().parents[1] / name)
    return folder / "package" / "measure.py"


def test_as_a_program(written):
    path = written("onnx")
    command = [sys.executable, "-m", "mobilenet_runtime.measure", str(path), "--runs", "2", "--threads", "1"]
    root = Path(mobilenet_runtime.__file__).resolve().parents[1]
    paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["output_names"] == list(tiny.OUTPUTS)
    assert result.stderr == ""


def test_the_size_has_the_weights(written, tmp_path):
    path = written("xml")
    assert size_of(path) == path.stat().st_size + path.with_suffix(".bin").stat().st_size
    (tmp_path / "a.onnx").write_bytes(b"1234")
    (tmp_path / "a.onnx.data").write_bytes(b"56")
    assert size_of(tmp_path / "a.onnx") == 6
    assert size_of(tmp_path) == 6
