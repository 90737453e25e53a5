"""What `--devices` and `--hosts` may say, and what is said of wrong ones."""

import subprocess
import sys

import keras
import pytest

from mobilenet_zoo.training import devices
from mobilenet_zoo.training.devices import hosts as hosts_module
from mobilenet_zoo.training.devices import launching
from mobilenet_zoo.training.devices.cluster import Cluster
from mobilenet_zoo.training.devices.hosts import expand_nodes, read_hosts

pytestmark = pytest.mark.across


def test_named_hosts():
    hosts = read_hosts("node0:2000, node1:2001", 1)
    assert hosts == (("node0:2000", "node1:2001"), 1) and hosts.first == ("node0", 2000)
    assert read_hosts(["[::1]:2000"], 0).first == ("[::1]", 2000)
    assert read_hosts() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("node0", 0), "'node0' must be name:port"),
        (("node0:0", 0), "must be name:port"),
        (("node0:65536", 0), "must be name:port"),
        (("a:1,,b:2", 0), "'' must be name:port"),
        (("a:1,a:1", 0), "twice"),
        (("a:1,b:2", None), "needs host_index"),
        (("a:1,b:2", 2), "at most 1"),
        (("a:1,b:2", -1), "host_index=-1"),
        ((None, 0), "needs hosts"),
        (("slurm", None), "no SLURM step"),
        (("slurm", 1), "which knows it"),
    ],
)
def test_wrong_hosts(arguments, message, monkeypatch):
    for name in ("SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=message.replace("'", "['\"]?")):
        read_hosts(*arguments)


# As `scontrol show hostnames` of SLURM's manual expands them.
@pytest.mark.parametrize(
    ("short", "names"),
    [
        ("gpu1", ["gpu1"]),
        ("linux[0-2,5]", ["linux0", "linux1", "linux2", "linux5"]),
        ("gpu[08-11],login", ["gpu08", "gpu09", "gpu10", "gpu11", "login"]),
        ("a,b[1-2]-ib,c", ["a", "b1-ib", "b2-ib", "c"]),
    ],
)
def test_slurm_short_form(short, names):
    assert expand_nodes(short) == names


def test_slurm(monkeypatch):
    for name, value in {
        "SLURM_STEP_NODELIST": "gpu[3-4]",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_JOB_ID": "70123",
    }.items():
        monkeypatch.setenv(name, value)
    assert read_hosts("slurm") == (("gpu3:29623", "gpu4:29623"), 1)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(ValueError, match="--ntasks-per-node=1"):
        read_hosts("slurm")


def test_share_of_a_batch():
    assert Cluster(0, 2, 4).share(32) == 16
    with pytest.raises(ValueError, match="28 or 32"):
        Cluster(0, 2, 4).share(30)
    with pytest.raises(ValueError, match="such as 4"):
        Cluster(0, 2, 4).share(3)


def test_one_device_needs_nothing():
    with devices.open_cluster() as cluster:
        assert type(cluster) is Cluster and cluster.is_chief and cluster.devices == 1
        assert cluster.broadcast_value({"a": 1}) == {"a": 1} and cluster.any(True) and cluster.all_equal(1)
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        before = dict(vars(model))
        cluster.prepare(model)
        assert vars(model) == before
    assert not devices.needs_launch() and devices.needs_launch(2)


def test_several_devices_need_the_launcher_under_pytorch():
    with pytest.raises(ValueError, match="launch, or with torchrun"), devices.open_cluster(2):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [({"devices": 0}, "devices=0"), ({"timeout": 0}, "timeout=0"), ({"hosts": "tpu"}, "KERAS_BACKEND=jax")],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message), devices.open_cluster(**options):
        pass


def test_the_reason_is_who_was_killed_not_who_missed_it(capsys):
    assert min([1, -15, -9, 2], key=launching._blame) == -9
    assert min([-15, 1], key=launching._blame) == 1
    launching._tell(1, 2, 4711, -9)
    said = capsys.readouterr().err
    assert "Process 1 of 2 (pid 4711) was ended by SIGKILL" in said and "memory" in said and "--resume" in said


def test_importing_the_zoo_imports_no_devices():
    code = "import sys, mobilenet_zoo; sys.exit('mobilenet_zoo.training.devices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_free_port_is_free():
    assert 1024 <= hosts_module.free_port() < 65536
