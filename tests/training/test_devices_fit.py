"""`fit` over several devices, processes and hosts gives the same result as on one device."""

import signal
import time

import numpy as np
import pytest

from mobilenet_zoo.training.devices.hosts import free_port
from tests.training.processes import Host, results, start, wait_for

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def single(folder):
    return results(folder / "one")[0]


def assert_same(run, single):
    assert np.ptp(single["losses"]) > 100 * TOLERANCE  # otherwise equal curves would prove little
    for name in ("losses", "weights"):
        np.testing.assert_allclose(run[name], single[name], rtol=TOLERANCE, atol=TOLERANCE)
    for name in single["history"]:
        np.testing.assert_allclose(run["history"][name], single["history"][name], atol=TOLERANCE)
        np.testing.assert_allclose(run["evaluated"][name], single["evaluated"][name], atol=TOLERANCE)


def assert_communicated(runs, processes):
    assert [run["chief"] for run in runs] == [True] + [False] * (processes - 1)
    for run in runs:
        assert run["processes"] == processes
        assert run["gathered"] == [{"index": i, "long": "é" * i} for i in range(processes)]
        assert run["broadcast"] == "of 0"
        assert run["any"] == [processes > 1, False]
        assert run["equal"] == [True, processes == 1]


def check_devices(folder, single, backend, devices):
    # Under PyTorch, the first process's initial weights replace those of the others.
    seeds = [0, 5, 6, 7] if backend == "torch" else [0]
    runs = results(folder / f"devices{devices}", devices=devices, seeds=seeds)
    processes = devices if backend == "torch" else 1
    assert len(runs) == processes and runs[0]["devices"] == devices
    for run in runs:
        assert_same(run, single)
    assert_communicated(runs, processes)


def check_hosts(folder, single, hosts):
    runs = results(folder / f"hosts{hosts}", hosts=hosts)
    assert len(runs) == hosts
    for run in runs:
        assert_same(run, single)
    assert_communicated(runs, hosts)


def test_two_devices_match_one(folder, single, backend):
    check_devices(folder, single, backend, 2)


@pytest.mark.slow
def test_two_hosts_match_one_device(folder, single, backend):
    if backend == "torch":
        pytest.skip("PyTorch's processes don't distinguish hosts from devices; the tests below start hosts")
    check_hosts(folder, single, 2)


@pytest.mark.slow
def test_four_devices_match_one(folder, single, backend):
    check_devices(folder, single, backend, 4)


@pytest.mark.slow
def test_four_hosts_match_one_device(folder, single):
    check_hosts(folder, single, 4)


@pytest.mark.slow
def test_killed_process_stops_all_hosts_and_is_reported(folder):
    hosts = start(folder / "killed", hosts=2, steps=10**6, kill=[1, 2])
    killed = wait_for(folder / "killed" / "step2.process1.json", hosts[1])
    assert hosts[1].status() == 128 + signal.SIGKILL, hosts[1].text()
    assert hosts[0].status() != 0
    assert time.time() - killed < 30
    assert "Process 1 of 2" in hosts[1].text() and "SIGKILL" in hosts[1].text()
    assert "Process 0 of 2" in hosts[0].text()
    assert "--resume" in hosts[0].text() and "--resume" in hosts[1].text()


@pytest.mark.slow
def test_killed_process_on_one_host_is_reported(folder, backend):
    if backend != "torch":
        pytest.skip("only PyTorch has several processes per host")
    (host,) = start(folder / "killed here", devices=2, steps=10**6, kill=[1, 2])
    killed = wait_for(folder / "killed here" / "step2.process1.json", host)
    assert host.status() == 128 + signal.SIGKILL, host.text()
    assert time.time() - killed < 30
    assert "Process 1 of 2" in host.text() and "SIGKILL" in host.text()


@pytest.mark.slow
def test_sigterm_to_one_host_stops_all_hosts_at_the_same_step(folder):
    hosts = start(folder / "stopped", hosts=2, wait_at=2)
    wait_for(folder / "stopped" / "step2.process1.json", hosts[1])
    hosts[1].process.terminate()
    assert [host.status() for host in hosts] == [3, 3], hosts[0].text()
    steps = [path.read_text() for path in sorted((folder / "stopped").glob("stopped.process*.json"))]
    assert len(steps) == 2 and steps[0] == steps[1]
    assert "Process" not in hosts[0].text()  # no process is reported as failed


@pytest.mark.slow
def test_unreachable_host_raises_an_error(folder):
    hosts = []
    for index in (0, 1):  # each host waits for another that is never started
        host_folder = folder / f"alone{index}"
        host_folder.mkdir()
        addresses = f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
        config = {"folder": str(host_folder), "devices": 1, "hosts": addresses, "host_index": index, "timeout": 5}
        hosts.append(Host(config))
    for index, host in enumerate(hosts):
        assert host.status() == 75, host.text()
        assert f"responded within 5 s (this is host {index})" in host.text()
