"""The model of many devices, next to what one computes by hand."""

import math

import pytest

from benchmarks.scaling import fit_link, ring_seconds, step_seconds

pytestmark = pytest.mark.across


def test_a_ring_of_four():
    # 3 steps of scattering and 3 of gathering, a quarter of the bytes each.
    assert ring_seconds(4, 1000, latency=0.5, bandwidth=50) == pytest.approx(6 * (0.5 + 250 / 50))
    assert ring_seconds(1, 1000, 0.5, 50) == 0


def test_a_step_of_eight():
    cost = {"compute": 3.0, "size": 800, "norms": 2, "latency": 0.01, "bandwidth": 1000}
    gradients = 14 * (0.01 + 100 / 1000)
    statistics = 2 * 4 * 3 * 0.01  # there and back, forward and backward, through three levels
    assert step_seconds(8, **cost, overlap=False) == pytest.approx(3.0 + gradients + statistics)
    assert step_seconds(8, **cost, overlap=True) == pytest.approx(3.0 + statistics)  # 1.54 s behind 2 s
    cost["size"] = 8000
    assert step_seconds(8, **cost, overlap=True) == pytest.approx(1.0 + 14 * (0.01 + 1.0) + statistics)


def test_one_device_exchanges_nothing():
    assert step_seconds(1, 3.0, 800, 2, 0.01, 1000, overlap=False) == 3.0


def test_the_link_is_found_again():
    times = {(n, size): ring_seconds(n, size, 2e-5, 3e9) for n in (2, 4) for size in (2**12, 2**20, 2**23)}
    latency, bandwidth = fit_link(times)
    assert math.isclose(latency, 2e-5, rel_tol=1e-6) and math.isclose(bandwidth, 3e9, rel_tol=1e-6)
