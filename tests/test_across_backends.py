"""The three backends agree: on every gradient and statistic of a training step, and on what a saved file predicts."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest

from tests import across_worker
from tests.across_worker import BACKENDS

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[1]
PAIRS = [("tensorflow", "jax"), ("jax", "torch"), ("torch", "tensorflow")]


def run(task, folder, backend):
    command = [sys.executable, "-m", "tests.across_worker", task, str(folder)]
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"KERAS_BACKEND": backend}, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{task} under {backend}:\n{result.stderr[-3000:]}"


def with_slow(names, quick):
    """Parameters, of which those that are not `quick` are slow."""
    return [pytest.param(name, marks=[] if name in quick else [pytest.mark.slow]) for name in names]


def is_quick(request):
    return "not slow" in request.config.option.markexpr


@pytest.fixture(scope="module")
def written(tmp_path_factory, request):
    """A folder with each backend's training step and models."""
    folder = tmp_path_factory.mktemp("written")
    for backend in BACKENDS:
        run("write" if is_quick(request) else "write-all", folder, backend)
    return folder


@pytest.fixture(scope="module")
def trained(written, request):
    """`{model: {backend: results}}` of one training step."""
    return {
        name: {backend: dict(np.load(written / f"{name}-{backend}.npz")) for backend in BACKENDS}
        for name in (across_worker.QUICK_TRAINED if is_quick(request) else across_worker.TRAINED)
    }


@pytest.fixture(scope="module")
def saved(written):
    """A folder with models written by every backend, and what each other predicts with them."""
    for backend in BACKENDS:
        run("read", written, backend)
    return written


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("name", with_slow(across_worker.TRAINED, across_worker.QUICK_TRAINED))
def test_a_training_step_is_the_same(name, one, other, trained):
    ours, theirs = trained[name][one], trained[name][other]
    assert ours.keys() == theirs.keys()
    assert sum(key.startswith("gradient ") for key in ours) > 100
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)
    norms = {key: np.linalg.norm(value) for key, value in theirs.items()}
    largest = max(norm for key, norm in norms.items() if key.startswith("gradient "))
    far = {}
    for key, value in ours.items():
        # Against its own norm; a gradient that is zero by theory is nothing but rounding, so against the largest one.
        scale = norms[key] if norms[key] > 1e-5 * largest or not key.startswith("gradient ") else largest
        distance = np.linalg.norm(value - theirs[key]) / scale
        if not distance <= 1e-3:
            far[key] = distance
    assert not far


@pytest.mark.parametrize(
    ("writer", "name", "data_format"),
    [
        pytest.param(writer, *case, marks=[] if case in across_worker.quick_saved(writer) else [pytest.mark.slow])
        for writer in BACKENDS
        for case in across_worker.ALL_SAVED
    ],
)
def test_a_saved_model_predicts_the_same_elsewhere(writer, name, data_format, saved):
    stem = f"{writer}-{name}-{data_format}"
    expected = np.load(saved / f"{stem}.npy")
    assert expected.std() > 1e-3, "the predictions differ from class to class"
    for reader in BACKENDS:
        answer = np.load(saved / f"{stem}-by-{reader}.npy")
        np.testing.assert_allclose(answer, expected, atol=1e-5, err_msg=f"read by {reader}")


def keras_version():
    """Keras's version, whatever the distribution is called, without importing it."""
    return next(version(name) for name in ("keras-nightly", "keras") if is_there(name))


def is_there(distribution):
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


def compare_by_openvino(saved, task):
    """Keras's backend for inference alone: what it answers, next to what the backends that wrote the models did."""
    pytest.importorskip("openvino")
    if tuple(int(part) for part in keras_version().split(".")[:2]) >= (3, 16):
        pytest.importorskip("keras_openvino", reason="from Keras 3.16 on this backend is a package of its own")
    run(task, saved, "openvino")
    answers = list(saved.glob("*-by-openvino.npy"))
    for path in answers:
        expected = np.load(saved / f"{path.stem.removesuffix('-by-openvino')}.npy")
        np.testing.assert_allclose(np.load(path), expected, atol=1e-5, err_msg=path.stem)
    return len(answers)


def test_openvino_infers_what_other_backends_saved(saved):
    assert compare_by_openvino(saved, "infer-one") >= 1


@pytest.mark.slow
def test_openvino_infers_every_generation(saved):
    assert compare_by_openvino(saved, "infer-some") >= len(across_worker.SAVED)


@pytest.mark.slow
@pytest.mark.parametrize("name", across_worker.SAVED)
def test_both_data_formats_predict_the_same(name, saved):
    # Every backend gives a model the same weights, so it matters little which of them wrote it.
    last, first = (np.load(next(saved.glob(f"*-{name}-{data_format}.npy"))) for data_format in across_worker.FORMATS)
    np.testing.assert_allclose(first, last, atol=1e-5)
