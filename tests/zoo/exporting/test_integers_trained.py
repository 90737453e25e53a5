"""Int8 files of a network trained on ImageNet, compared with those of each runtime's own tools."""

import pytest

from benchmarks.trained_integers import compare, images

pytestmark = [pytest.mark.across, pytest.mark.slow]

SIDE, COUNT = 160, 48
NOISE = 0.3  # dB between runs
# Minimum signal-to-noise ratios, in dB, of the pooled features and of the logits, and minimum agreement.
MINIMUMS = {"litert": (17.0, 19.0, 0.9), "onnx": (17.0, 19.0, 0.9), "openvino": (17.0, 19.0, 0.9)}


@pytest.mark.parametrize("format", MINIMUMS)
def test_int8_is_as_accurate_as_with_the_best_tool(format, tmp_path):
    calibration, test_images = images(COUNT, seed=1, side=SIDE), images(COUNT, seed=2, side=SIDE)
    *tools, result = compare(format, tmp_path, calibration, test_images, SIDE)
    assert result["by"] == "mobilenet_zoo" and tools
    for tool in tools:
        assert result["features"] >= tool["features"] - NOISE, tool
        assert result["logits"] >= tool["logits"] - NOISE, tool
        assert result["agreement"] >= tool["agreement"] - 1.5 / COUNT, tool
    features, logits, agreement = MINIMUMS[format]
    assert result["features"] >= features
    assert result["logits"] >= logits
    assert result["agreement"] >= agreement
