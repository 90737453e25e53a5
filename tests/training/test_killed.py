"""Runs that are killed by SIGKILL at random moments, again and again, end with the weights of one that ran through."""

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
    own = {"KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "NPROC": "1"}
    command = [sys.executable, "-m", "tests.training.killed_worker", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said.decode()[-3000:]


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_at_random_moments(backend, tmp_path):
    began = time.monotonic()
    finish(start(tmp_path / "through", backend))
    seconds = time.monotonic() - began
    expected = (tmp_path / "through.weights").read_bytes()
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
    assert resumed >= KILLS // 4, "most kills came before there was a checkpoint"
