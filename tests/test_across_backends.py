"""The three backends agree on every gradient and statistic of a training step, and on a saved model's predictions."""

import os
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest

from tests import across_worker
from tests.across_worker import BACKENDS

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[1]
PAIRS = [("tensorflow", "jax"), ("jax", "torch"), ("torch", "tensorflow")]


def run(task, folder, *backends):
    """Run a task of the worker under each backend at the same time."""
    lean = ["-m", "tests.lean"] if "openvino" not in backends else ["-m"]
    command = [sys.executable, *lean, "tests.across_worker", task, str(folder)]
    processes = {}
    for backend in backends:
        with (folder / f"{backend}.log").open("w") as log:
            processes[backend] = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | {"KERAS_BACKEND": backend}, stdout=log, stderr=log
            )
    running = dict(processes)
    while running:  # A failure ends all of them, because they wait for each other.
        running = {backend: process for backend, process in running.items() if process.poll() is None}
        failed = [backend for backend, process in processes.items() if process.returncode]
        if failed:
            for process in running.values():
                process.kill()
            log = folder / f"{failed[0]}.log"
            pytest.fail(f"{task} under {failed[0]}:\n{log.read_text()[-3000:]}", pytrace=False)
        time.sleep(0.1)


def with_slow(names, quick):
    """Return parameters in which all names except those in `quick` are marked as slow."""
    return [pytest.param(name, marks=[] if name in quick else [pytest.mark.slow]) for name in names]


def is_quick(request):
    return "not slow" in request.config.option.markexpr


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory, request):
    """A folder with each backend's training step and models, and each backend's predictions with all of the models."""
    folder = tmp_path_factory.mktemp("exchanged")
    run("exchange" if is_quick(request) else "exchange-all", folder, *BACKENDS)
    return folder


@pytest.fixture(scope="module")
def trained(exchanged, request):
    """`{model: {backend: results}}` of one training step."""
    return {
        name: {backend: dict(np.load(exchanged / f"{name}-{backend}.npz")) for backend in BACKENDS}
        for name in (across_worker.QUICK_TRAINED if is_quick(request) else across_worker.TRAINED)
    }


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("name", with_slow(across_worker.TRAINED, across_worker.QUICK_TRAINED))
def test_training_step_is_the_same_under_two_backends(name, one, other, trained):
    ours, theirs = trained[name][one], trained[name][other]
    assert ours.keys() == theirs.keys()
    assert sum(key.startswith("gradient ") for key in ours) > 100
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)
    norms = {key: np.linalg.norm(value) for key, value in theirs.items()}
    largest = max(norm for key, norm in norms.items() if key.startswith("gradient "))
    deviating = {}
    for key, value in ours.items():
        # A gradient that is zero in theory consists of rounding errors, so it is compared to the largest gradient.
        scale = norms[key] if norms[key] > 1e-5 * largest or not key.startswith("gradient ") else largest
        distance = np.linalg.norm(value - theirs[key]) / scale
        if not distance <= 1e-3:
            deviating[key] = distance
    assert not deviating


@pytest.mark.parametrize(
    ("writer", "name", "data_format"),
    [
        pytest.param(writer, *case, marks=[] if case in across_worker.quick_saved(writer) else [pytest.mark.slow])
        for writer in BACKENDS
        for case in across_worker.ALL_SAVED
    ],
)
def test_saved_model_predicts_the_same_under_every_backend(writer, name, data_format, exchanged):
    stem = f"{writer}-{name}-{data_format}"
    expected = np.load(exchanged / f"{stem}.npy")
    assert expected.std() > 1e-3, "the predictions are the same for all classes"
    for reader in BACKENDS:
        predictions = np.load(exchanged / f"{stem}-by-{reader}.npy")
        np.testing.assert_allclose(predictions, expected, atol=1e-5, err_msg=f"read by {reader}")


def keras_version():
    """Return the version of Keras, from whichever distribution is installed, without importing it."""
    return next(version(name) for name in ("keras-nightly", "keras") if is_installed(name))


def is_installed(distribution):
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


def compare_with_openvino(folder, task):
    """Compare the predictions of Keras's OpenVINO backend with those of the backends that wrote the models.

    This backend supports only inference. Return the number of models.
    """
    pytest.importorskip("openvino")
    if int(version("openvino").split(".")[0]) < 2026:
        pytest.skip("Keras's OpenVINO backend uses functions that older versions lack")
    if tuple(int(part) for part in keras_version().split(".")[:2]) >= (3, 16):
        pytest.importorskip("keras_openvino", reason="from Keras 3.16 on, this backend is a separate package")
    run(task, folder, "openvino")
    paths = list(folder.glob("*-by-openvino.npy"))
    for path in paths:
        expected = np.load(folder / f"{path.stem.removesuffix('-by-openvino')}.npy")
        np.testing.assert_allclose(np.load(path), expected, atol=1e-5, err_msg=path.stem)
    return len(paths)


def test_openvino_runs_one_saved_model(exchanged):
    assert compare_with_openvino(exchanged, "infer-one") >= 1


@pytest.mark.slow
def test_openvino_runs_every_generation(exchanged):
    assert compare_with_openvino(exchanged, "infer-some") >= len(across_worker.SAVED)


@pytest.mark.slow
@pytest.mark.parametrize("name", across_worker.SAVED)
def test_both_data_formats_predict_the_same(name, exchanged):
    # Every backend gives a model the same weights, so any writer will do.
    last, first = (
        np.load(next(exchanged.glob(f"*-{name}-{data_format}.npy"))) for data_format in across_worker.FORMATS
    )
    np.testing.assert_allclose(first, last, atol=1e-5)
