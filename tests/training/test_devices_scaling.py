"""The scaling model of `benchmarks.scaling`, compared with values computed by hand."""

import math

import pytest

from benchmarks.scaling import fit_link, ring_seconds, step_seconds

pytestmark = pytest.mark.across


def test_ring_of_four_devices_makes_six_transfers():
    # 3 scatter steps and 3 gather steps, each with a quarter of the bytes.
    assert ring_seconds(4, 1000, latency=0.5, bandwidth=50) == pytest.approx(6 * (0.5 + 250 / 50))
    assert ring_seconds(1, 1000, 0.5, 50) == 0


def test_step_of_eight_devices_adds_communication():
    cost = {"compute": 3.0, "size": 800, "norms": 2, "latency": 0.01, "bandwidth": 1000}
    gradients = 14 * (0.01 + 100 / 1000)
    statistics = 2 * 4 * 3 * 0.01  # up and down three tree levels, in the forward and the backward pass
    assert step_seconds(8, **cost, overlap=False) == pytest.approx(3.0 + gradients + statistics)
    # Sending the gradients takes 1.54 s, less than the backward pass of 2 s.
    assert step_seconds(8, **cost, overlap=True) == pytest.approx(3.0 + statistics)
    cost["size"] = 8000
    assert step_seconds(8, **cost, overlap=True) == pytest.approx(1.0 + 14 * (0.01 + 1.0) + statistics)


def test_single_device_has_no_communication():
    assert step_seconds(1, 3.0, 800, 2, 0.01, 1000, overlap=False) == 3.0


def test_fit_link_recovers_latency_and_bandwidth():
    times = {(n, size): ring_seconds(n, size, 2e-5, 3e9) for n in (2, 4) for size in (2**12, 2**20, 2**23)}
    latency, bandwidth = fit_link(times)
    assert math.isclose(latency, 2e-5, rel_tol=1e-6) and math.isclose(bandwidth, 3e9, rel_tol=1e-6)
