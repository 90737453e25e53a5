"""Runs that are killed repeatedly at random times and resumed end with the weights of an uninterrupted run."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.across_worker import BACKENDS

pytestmark = [pytest.mark.across, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20


def start(folder, backend):
    variables = {"KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "NPROC": "1"}
    command = [sys.executable, "-m", "tests.training.killed_worker", str(folder)]
    environment = os.environ | variables
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr.decode()[-3000:]


@pytest.mark.parametrize("backend", BACKENDS)
def test_randomly_killed_runs_end_with_the_same_weights(backend, tmp_path):
    start_time = time.monotonic()
    finish(start(tmp_path / "uninterrupted", backend))
    seconds = time.monotonic() - start_time
    expected = (tmp_path / "uninterrupted.weights").read_bytes()
    random.seed(backend)
    kills, runs, resumed = 0, 0, 0
    while kills < KILLS:
        folder = tmp_path / f"run{runs}"
        process = start(folder, backend)
        try:
            process.wait(timeout=random.uniform(0.3, 1) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            resumed += (folder / "checkpoints").is_dir() and any((folder / "checkpoints").iterdir())
            continue
        finish(process)
        assert (tmp_path / f"run{runs}.weights").read_bytes() == expected
        runs += 1
    folder = tmp_path / f"run{runs}"
    finish(start(folder, backend))
    assert (tmp_path / f"run{runs}.weights").read_bytes() == expected
    assert resumed >= KILLS // 4, "most runs were killed before their first checkpoint"
