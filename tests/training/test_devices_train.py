"""`train` over devices and hosts: as on one device, and after a lost process or SIGTERM it goes on to the same end."""

import csv
import signal
import time

import keras
import numpy as np
import pytest

from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo import from_pretrained
from mobilenet_zoo.training import Checkpoints
from tests.training import tiny
from tests.training.processes import start
from tests.training.train_worker import STOPPED

pytestmark = pytest.mark.slow

CURVE = 1e-4
TIMES = {"images_per_second", "waiting"}
MODULE = "tests.training.train_worker"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a model that draws no random numbers in training: every device would draw its own."""
    folder = tmp_path_factory.mktemp("train")
    keras.utils.set_random_seed(0)
    model = create_mobilenetv4(tiny.TINY, len(tiny.CLASSES), (tiny.SIZE, tiny.SIZE, 3), dropout_rate=0.0)
    model.save(folder / "model.keras")
    return folder


def go(folder, **order):
    hosts = start(folder, module=MODULE, **order)
    return hosts, [host.status() for host in hosts]


def trained(folder, **order):
    hosts, statuses = go(folder, **order)
    assert statuses == [0] * len(hosts), hosts[0].text()
    rows = list(csv.DictReader((folder / order["run"] / "log.csv").open()))
    log = [[float(value) for name, value in row.items() if name not in TIMES] for row in rows]
    weights = [
        keras.ops.convert_to_numpy(weight) for weight in from_pretrained(folder / order["run"] / "model").weights
    ]
    return np.array(log), weights


@pytest.fixture(scope="module")
def one(folder):
    log, weights = trained(folder, run="one")
    assert len(log) == 4 and np.ptp(log[:, 3]) > 100 * CURVE  # else equal curves would say little
    return log, weights


def check_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=CURVE, atol=CURVE)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("devices", [2, 4])
def test_devices_train_as_one(devices, folder, one):
    check_same(trained(folder, run=f"devices{devices}", devices=devices), one)


def test_hosts_that_lose_one_go_on(folder, one):
    hosts = start(folder, module=MODULE, run="killed", hosts=2, signal=[1, 5, signal.SIGKILL])
    assert hosts[1].status() == 128 + signal.SIGKILL, hosts[1].text()
    lost = time.monotonic()
    assert hosts[0].status() != 0
    assert time.monotonic() - lost < 30
    assert "--resume" in hosts[1].text()
    assert Checkpoints(folder / "killed" / "checkpoints", writes=False).steps()[-1] >= 3
    check_same(trained(folder, run="killed", hosts=2), one)


def test_hosts_stop_together_and_go_on(folder, one):
    hosts, statuses = go(folder, run="stopped", hosts=2, signal=[1, 5, signal.SIGTERM])
    assert statuses == [STOPPED] * 2, hosts[0].text()
    steps = Checkpoints(folder / "stopped" / "checkpoints", writes=False).steps()
    assert 5 <= steps[-1] < 12
    check_same(trained(folder, run="stopped", hosts=2), one)
