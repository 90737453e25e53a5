"""The benchmarks: statistics of the timings, reports, and one complete comparison."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import comparison, report, timing
from benchmarks.contenders import MODELS, MODES

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[1]


def benchmarks(*arguments, module="benchmarks"):
    environment = os.environ | {"COLUMNS": "200"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_summary_returns_quartiles_of_ratios_per_turn():
    times = {"ours": [1.0, 2.0, 4.0, 1.0], "peer": [3.0, 4.0, 4.0, 5.0]}
    rows = timing.summary(times, "ours")
    assert rows["ours"]["ratio"] == 1.0
    assert rows["peer"] == {"ms": 4000.0, "ratio": 2.5, "low": 1.75, "high": 3.5, "turns": 4}


def test_interleaved_reverses_order_in_every_other_turn():
    calls = []
    programs = {name: (lambda name=name: calls.append(name) or 1.0) for name in "abc"}
    times = timing.interleaved(programs, seconds=0.0, fewest=3)
    assert "".join(calls) == "abccbaabc"
    assert {name: len(turns) for name, turns in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_turn_returns_median_after_warm_up(monkeypatch):
    pauses = iter([0.03, 0.01, 0.02, 0.05, 0.01])
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def program():
        calls.append(1)
        clock[0] += next(pauses)

    seconds = timing.turn(program, least=0.09)
    assert len(calls) == 4  # one warm-up call of 0.03 s, then three calls to fill 0.09 s
    assert seconds == pytest.approx(0.02)


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs /proc/self/clear_refs to measure peak memory"
)
def test_peak_memory_of_call():
    assert timing.peak_memory(lambda: np.ones(8 << 20)) == pytest.approx(64, abs=4)
    assert timing.peak_memory(lambda: None) < 1
    calls = iter([1, 1, 8 << 20])  # the first two calls allocate almost nothing
    assert timing.peak_memory(lambda: np.ones(next(calls))) == pytest.approx(64, abs=4)


def test_failed_contender_reports_its_error():
    process = comparison.Process("torch")
    try:
        assert process.ask(prepare=["ours", "mobilenetv4_conv_small", "eager", "inference", 1], precision="float32")
        assert process.ask(turn=0.0)["seconds"] > 0
        with pytest.raises(comparison.ContenderFailed, match="KeyError: 'nobody'"):
            process.ask(prepare=["nobody", "mobilenetv4_conv_small", "eager", "inference", 1], precision="float32")
    finally:
        process.close()


def test_contenders_may_have_different_references():
    times = {"ours": [1.0, 1.0], "ours, padded as timm": [2.0, 2.0], "timm": [3.0, 3.0]}
    rows = timing.summary(times, "ours", {"timm": "ours, padded as timm"})
    assert [rows[name]["ratio"] for name in times] == [1.0, 2.0, 1.5]


def result(ratio=1.0):
    return {"ms": 10.0, "ratio": ratio, "low": ratio - 0.1, "high": ratio + 0.1, "turns": 5, "memory": 7.0}


def comparison_row(model="mobilenetv2_100", measure="inference", batch=1, **peers):
    row = {"model": model, "backend": "torch", "mode": "eager", "measure": measure, "batch": batch}
    contenders = {"ours": result()} | {name: result(ratio) for name, ratio in peers.items()}
    return row | {"contenders": contenders}


def test_tables_compare_results_with_goals():
    fused = "ours, fused"
    rows = [
        comparison_row("mobilenetv2_100", timm=0.9, **{fused: 0.8}),
        comparison_row("mobilenetv4_conv_small", timm=1.1, **{fused: 0.5}),
        comparison_row("mobilenetv2_100", "training", 16, timm=1.25),
        comparison_row("mobilenetv3_small_100", **{"keras.applications": 9.0}),  # has no goal
    ]
    machine = {"processor": "P", "cores": 2, "system": "S", "versions": {"keras": "3"}}
    lines = report.tables({"machine": machine, "command": "c", "rows": rows, "matrix_product_rate": {}}).splitlines()
    goals = [line for line in lines if "; goal " in line]
    assert goals == [
        "| PyTorch, timm | 0.90 (v2_100) to 1.10 (v4_conv_small); goal 0.8 |  | 1.25 (v2_100); goal 1.2 |",
        "| fused, plain: PyTorch | 1.25 (v2_100) to 2.00 (v4_conv_small); goal 1.1 |  |  |",
    ]
    line = "| mobilenetv2_100 | training, batch 16 | 10.0 ms | 7 MiB | timm | **1.25** (1.15 to 1.35) | 7 MiB |"
    assert line in lines


def test_benchmarked_models_and_backends_are_known():
    import mobilenet_zoo

    assert {model.name for model in MODELS} <= set(mobilenet_zoo.list_models())
    assert set(MODES) == {"jax", "torch", "tensorflow"}


@pytest.mark.slow
def test_comparison_writes_results_tables_and_plot(tmp_path):
    options = ["--backend", "tensorflow", "--model", "mobilenetv3_small_100", "--batch", "1", "--training-batch", "0"]
    result = benchmarks(*options, "--seconds", "0", "--no-growth", "--output", str(tmp_path))
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["mode"] for row in rows] == ["graph", "jit_compile"]
    for row in rows:
        assert {"ours", "ours, fused", "keras.applications"} <= row["contenders"].keys()
        assert all(contender["ms"] > 0 for contender in row["contenders"].values())
    assert "### tensorflow, graph" in (tmp_path / "tables.md").read_text()
    assert "fused, plain: TensorFlow" in result.stdout
    assert (tmp_path / "ratios.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("backend", "operation"),
    [
        pytest.param("tensorflow", "DepthwiseConv2dNative", marks=pytest.mark.slow),
        pytest.param("torch", "aten::mkldnn_convolution", marks=pytest.mark.slow),
    ],
)
def test_operations_are_listed_for_both_libraries(backend, operation):
    options = ("mobilenetv3_small_100", "--batch", "1", "--rows", "30")
    result = benchmarks(backend, *options, module="benchmarks.operations")
    assert result.returncode == 0, result.stderr
    ours, peer = result.stdout.split("keras.applications: ")
    assert operation in ours and operation in peer


@pytest.mark.parametrize("arguments", [("theano", "mobilenetv2_100"), ("torch", "resnet50")])
def test_operations_of_unknown_names_exit_with_2(arguments):
    result = benchmarks(*arguments, module="benchmarks.operations")
    assert result.returncode == 2
    assert set(arguments) & {"theano", "resnet50"} <= set(result.stderr.split("'"))


@pytest.mark.parametrize(("option", "value"), [("--backend", "theano"), ("--model", "resnet50")])
def test_unknown_names_exit_with_2(option, value):
    result = benchmarks(option, value)
    assert result.returncode == 2
    assert value in result.stderr
