"""`train` over devices and hosts matches one device, also if resumed after a killed process or SIGTERM."""

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

TOLERANCE = 1e-4
TIMING_COLUMNS = {"images_per_second", "waiting"}
MODULE = "tests.training.train_worker"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with a model that draws no random numbers in training, since each device would draw different ones."""
    folder = tmp_path_factory.mktemp("train")
    keras.utils.set_random_seed(0)
    model = create_mobilenetv4(tiny.TINY, len(tiny.CLASSES), (tiny.SIZE, tiny.SIZE, 3), dropout_rate=0.0)
    model.save(folder / "model.keras")
    return folder


def launch(folder, **config):
    hosts = start(folder, module=MODULE, **config)
    return hosts, [host.status() for host in hosts]


def train_hosts(folder, **config):
    hosts, statuses = launch(folder, **config)
    assert statuses == [0] * len(hosts), hosts[0].text()
    rows = list(csv.DictReader((folder / config["run"] / "log.csv").open()))
    log = [[float(value) for name, value in row.items() if name not in TIMING_COLUMNS] for row in rows]
    weights = [
        keras.ops.convert_to_numpy(weight) for weight in from_pretrained(folder / config["run"] / "model").weights
    ]
    return np.array(log), weights


@pytest.fixture(scope="module")
def single(folder):
    log, weights = train_hosts(folder, run="one")
    assert len(log) == 4 and np.ptp(log[:, 3]) > 100 * TOLERANCE  # otherwise equal curves would prove little
    return log, weights


def check_same(actual, expected):
    np.testing.assert_allclose(actual[0], expected[0], rtol=TOLERANCE, atol=TOLERANCE)
    for weight, expected_weight in zip(actual[1], expected[1], strict=True):
        np.testing.assert_allclose(weight, expected_weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("devices", [2, 4])
def test_devices_match_one_device(devices, folder, single):
    check_same(train_hosts(folder, run=f"devices{devices}", devices=devices), single)


def test_hosts_resume_after_one_is_killed(folder, single):
    hosts = start(folder, module=MODULE, run="killed", hosts=2, signal=[1, 5, signal.SIGKILL])
    assert hosts[1].status() == 128 + signal.SIGKILL, hosts[1].text()
    kill_time = time.monotonic()
    assert hosts[0].status() != 0
    assert time.monotonic() - kill_time < 30
    assert "--resume" in hosts[1].text()
    assert Checkpoints(folder / "killed" / "checkpoints", writes=False).steps()[-1] >= 3
    check_same(train_hosts(folder, run="killed", hosts=2), single)


def test_hosts_stop_together_on_sigterm_and_resume(folder, single):
    hosts, statuses = launch(folder, run="stopped", hosts=2, signal=[1, 5, signal.SIGTERM])
    assert statuses == [STOPPED] * 2, hosts[0].text()
    steps = Checkpoints(folder / "stopped" / "checkpoints", writes=False).steps()
    assert 5 <= steps[-1] < 12
    check_same(train_hosts(folder, run="stopped", hosts=2), single)
