"""8-bit integers of a network trained on ImageNet, beside what each runtime's own tool makes of it."""

import pytest

from benchmarks.trained_integers import compare, images

pytestmark = [pytest.mark.across, pytest.mark.slow]

SIDE, COUNT = 160, 48
NOISE = 0.3  # dB between runs
# The least signal to noise in dB, of the pooled features and of the logits, and the least agreement.
FLOORS = {"litert": (17.0, 19.0, 0.9), "onnx": (17.0, 19.0, 0.9), "openvino": (17.0, 19.0, 0.9)}


@pytest.mark.parametrize("format", FLOORS)
def test_ours_is_at_least_the_best_of_the_tool(format, tmp_path):
    calibration, evaluated = images(COUNT, seed=1, side=SIDE), images(COUNT, seed=2, side=SIDE)
    *tools, ours = compare(format, tmp_path, calibration, evaluated, SIDE)
    assert ours["by"] == "mobilenet_zoo" and tools
    for tool in tools:
        assert ours["features"] >= tool["features"] - NOISE, tool
        assert ours["logits"] >= tool["logits"] - NOISE, tool
        assert ours["agreement"] >= tool["agreement"] - 1.5 / COUNT, tool
    features, logits, agreement = FLOORS[format]
    assert ours["features"] >= features
    assert ours["logits"] >= logits
    assert ours["agreement"] >= agreement
