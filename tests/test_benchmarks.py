"""The benchmarks' own arithmetic, and one comparison from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report, timing
from benchmarks.contenders import MODELS, MODES

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[1]


def benchmarks(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, env=os.environ, capture_output=True, text=True
    )


def test_ratios_are_those_of_the_turns():
    times = {"ours": [1.0, 2.0, 4.0, 1.0], "peer": [3.0, 4.0, 4.0, 5.0]}
    rows = timing.summary(times, "ours")
    assert rows["ours"]["ratio"] == 1.0
    assert rows["peer"] == {"ms": 4000.0, "ratio": 2.5, "low": 1.75, "high": 3.5, "turns": 4}


def test_contenders_take_turns_in_alternating_order():
    called = []
    programs = {name: (lambda name=name: called.append(name)) for name in "abc"}
    times = timing.interleaved(programs, seconds=0.0, fewest=3)
    assert "".join(called) == "abccbaabc"
    assert {name: len(turns) for name, turns in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_timm_is_held_against_the_model_that_pads_as_timm_does():
    contender = {"ms": 10.0, "ratio": 1.0, "low": 1.0, "high": 1.0, "turns": 5, "memory": None}
    row = {"model": "m", "backend": "torch", "mode": "eager", "measure": "inference", "batch": 1}
    row["contenders"] = {
        "ours": contender,
        "ours, padded as timm": contender | {"ratio": 0.5},
        "timm": contender | {"ratio": 0.75, "low": 0.6, "high": 0.8, "memory": 7.0},
    }
    machine = {"processor": "P", "cores": 2, "system": "S", "versions": {"keras": "3"}}
    text = report.tables({"machine": machine, "command": "c", "rows": [row], "matrix_product_rate": {}})
    assert "| timm | **1.50** (1.20 to 1.60) | 7 MiB |" in text


def test_every_model_is_a_name_of_the_zoo():
    import mobilenet_zoo

    assert {model.name for model in MODELS} <= set(mobilenet_zoo.list_models())
    assert set(MODES) == {"jax", "torch", "tensorflow"}


def test_a_comparison_from_end_to_end(tmp_path):
    options = ["--backend", "tensorflow", "--model", "mobilenetv3_small_100", "--batch", "1", "--training-batch", "0"]
    result = benchmarks(*options, "--seconds", "0", "--no-growth", "--output", str(tmp_path))
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["mode"] for row in rows] == ["graph", "jit_compile"]
    for row in rows:
        assert {"ours", "ours, fused", "keras.applications"} <= row["contenders"].keys()
        assert all(contender["ms"] > 0 for contender in row["contenders"].values())
    assert "### tensorflow, graph" in (tmp_path / "tables.md").read_text()
    assert (tmp_path / "ratios.png").stat().st_size > 10_000


@pytest.mark.parametrize(("option", "value"), [("--backend", "theano"), ("--model", "resnet50")])
def test_unknown_names_are_refused(option, value):
    result = benchmarks(option, value)
    assert result.returncode == 2
    assert value in result.stderr
