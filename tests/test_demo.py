"""The example programs: the demo on handwritten digits and the fine-tuning example."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from matplotlib.image import imread

import mobilenet_zoo  # noqa: F401 - registers the layers

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[1]


def run(backend, folder, *arguments, program="digits"):
    """Run an example in a child process; return its exit status and output."""
    command = [sys.executable, f"examples/{program}.py", "--output", str(folder), *arguments]
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


def test_demo_below_goal_exits_with_1_and_writes_model_and_images(tmp_path):
    status, output = run("torch", tmp_path, "--epochs", "1", "--goal", "0.97")
    assert status == 1, output
    assert "below the goal of 97%" in output
    assert re.search(r"reloaded +tensorflow backend, largest difference of a probability \d\.\de-0[5-9]", output)
    assert keras.saving.load_model(tmp_path / "digits.keras", compile=False).output_shape == (None, 10)
    for name in ("learning_curves.png", "predictions.png"):
        image = imread(tmp_path / name)
        assert image.shape[0] > 300 and image.shape[1] > 1000
        assert image[..., :3].std() > 0.05, f"{name} is blank"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_demo_reaches_goal(backend, tmp_path):
    status, output = run(backend, tmp_path)
    assert status == 0, output
    assert float(re.search(r"([\d.]+)% of the validation digits", output)[1]) >= 97


@pytest.mark.slow
def test_fine_tuning_beats_training_from_scratch(tmp_path):
    """docs/fine-tuning.md documents this result."""
    status, output = run("jax", tmp_path, program="finetune")
    assert status == 0, output
    curves = json.loads((tmp_path / "curves.json").read_text())
    assert curves["all"][-1] > curves["scratch"][-1] > 0.5
    assert curves["all"][-1] > curves["head"][-1]
    assert (tmp_path / "curves.png").stat().st_size > 10_000
