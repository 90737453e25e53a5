"""`fit` over devices, processes and hosts: the same as on one device."""

import signal
import time

import numpy as np
import pytest

from mobilenet_zoo.training.devices.hosts import free_port
from tests.training.processes import Host, results, start, wait_for

CURVE = 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def one(folder):
    return results(folder / "one")[0]


def assert_same(run, one):
    assert np.ptp(one["losses"]) > 100 * CURVE  # else equal curves would say little
    for name in ("losses", "weights"):
        np.testing.assert_allclose(run[name], one[name], rtol=CURVE, atol=CURVE)
    for name in one["history"]:
        np.testing.assert_allclose(run["history"][name], one["history"][name], atol=CURVE)
        np.testing.assert_allclose(run["evaluated"][name], one["evaluated"][name], atol=CURVE)


def assert_talked(runs, processes):
    assert [run["chief"] for run in runs] == [True] + [False] * (processes - 1)
    for run in runs:
        assert run["processes"] == processes
        assert run["gathered"] == [{"index": i, "long": "é" * i} for i in range(processes)]
        assert run["broadcast"] == "of 0"
        assert run["any"] == [processes > 1, False]
        assert run["equal"] == [True, processes == 1]


def check_devices(folder, one, backend, devices):
    # Under PyTorch weights are the first process's, whatever the others began with.
    seeds = [0, 5, 6, 7] if backend == "torch" else [0]
    runs = results(folder / f"devices{devices}", devices=devices, seeds=seeds)
    processes = devices if backend == "torch" else 1
    assert len(runs) == processes and runs[0]["devices"] == devices
    for run in runs:
        assert_same(run, one)
    assert_talked(runs, processes)


def check_hosts(folder, one, hosts):
    runs = results(folder / f"hosts{hosts}", hosts=hosts)
    assert len(runs) == hosts
    for run in runs:
        assert_same(run, one)
    assert_talked(runs, hosts)


def test_two_devices_train_as_one(folder, one, backend):
    check_devices(folder, one, backend, 2)


@pytest.mark.slow
def test_two_hosts_train_as_one(folder, one, backend):
    if backend == "torch":
        pytest.skip("two hosts and two devices are the same to its processes; the tests below start hosts")
    check_hosts(folder, one, 2)


@pytest.mark.slow
def test_four_devices_train_as_one(folder, one, backend):
    check_devices(folder, one, backend, 4)


@pytest.mark.slow
def test_four_hosts_train_as_one(folder, one):
    check_hosts(folder, one, 4)


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_is_named(folder):
    hosts = start(folder / "killed", hosts=2, steps=10**6, kill=[1, 2])
    killed = wait_for(folder / "killed" / "step2.process1.json", hosts[1])
    assert hosts[1].status() == 128 + signal.SIGKILL, hosts[1].text()
    assert hosts[0].status() != 0
    assert time.time() - killed < 30
    assert "Process 1 of 2" in hosts[1].text() and "SIGKILL" in hosts[1].text()
    assert "Process 0 of 2" in hosts[0].text()
    assert "--resume" in hosts[0].text() and "--resume" in hosts[1].text()


@pytest.mark.slow
def test_a_killed_process_of_a_host_is_told_from_those_that_missed_it(folder, backend):
    if backend != "torch":
        pytest.skip("has one process on a host")
    (host,) = start(folder / "killed here", devices=2, steps=10**6, kill=[1, 2])
    killed = wait_for(folder / "killed here" / "step2.process1.json", host)
    assert host.status() == 128 + signal.SIGKILL, host.text()
    assert time.time() - killed < 30
    assert "Process 1 of 2" in host.text() and "SIGKILL" in host.text()


@pytest.mark.slow
def test_sigterm_to_one_host_stops_all_at_the_same_step(folder):
    hosts = start(folder / "stopped", hosts=2, wait_at=2)
    wait_for(folder / "stopped" / "step2.process1.json", hosts[1])
    hosts[1].process.terminate()
    assert [host.status() for host in hosts] == [3, 3], hosts[0].text()
    steps = [path.read_text() for path in sorted((folder / "stopped").glob("stopped.process*.json"))]
    assert len(steps) == 2 and steps[0] == steps[1]
    assert "Process" not in hosts[0].text()  # nothing went wrong


@pytest.mark.slow
def test_a_host_that_does_not_answer_ends_in_an_error(folder):
    hosts = []
    for index in (0, 1):  # each waits for the other, which nobody starts
        place = folder / f"alone{index}"
        place.mkdir()
        addresses = f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
        order = {"folder": str(place), "devices": 1, "hosts": addresses, "host_index": index, "timeout": 5}
        hosts.append(Host(order))
    for index, host in enumerate(hosts):
        assert host.status() == 75, host.text()
        assert f"answered within 5 s (this is host {index})" in host.text()
