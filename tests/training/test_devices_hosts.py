"""The arguments `devices` and `hosts`, errors for wrong values, and the launcher's report of a failed process."""

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


def test_read_hosts_parses_names_and_ports():
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
        (("slurm", 1), "which sets the index"),
    ],
)
def test_wrong_hosts_raise(arguments, message, monkeypatch):
    for name in ("SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=message.replace("'", "['\"]?")):
        read_hosts(*arguments)


# Expanded as by `scontrol show hostnames` in SLURM's manual.
@pytest.mark.parametrize(
    ("node_list", "names"),
    [
        ("gpu1", ["gpu1"]),
        ("linux[0-2,5]", ["linux0", "linux1", "linux2", "linux5"]),
        ("gpu[08-11],login", ["gpu08", "gpu09", "gpu10", "gpu11", "login"]),
        ("a,b[1-2]-ib,c", ["a", "b1-ib", "b2-ib", "c"]),
    ],
)
def test_slurm_node_list_is_expanded(node_list, names):
    assert expand_nodes(node_list) == names


def test_read_hosts_reads_slurm_variables(monkeypatch):
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


def test_share_is_the_batch_size_of_a_process():
    assert Cluster(0, 2, 4).share(32) == 16
    with pytest.raises(ValueError, match="28 or 32"):
        Cluster(0, 2, 4).share(30)
    with pytest.raises(ValueError, match="such as 4"):
        Cluster(0, 2, 4).share(3)


def test_single_device_leaves_the_model_unchanged():
    with devices.open_cluster() as cluster:
        assert type(cluster) is Cluster and cluster.is_chief and cluster.devices == 1
        assert cluster.broadcast_value({"a": 1}) == {"a": 1} and cluster.any(True) and cluster.all_equal(1)
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        before = dict(vars(model))
        cluster.prepare(model)
        assert vars(model) == before
    assert not devices.needs_launch() and devices.needs_launch(2)


def test_several_pytorch_devices_without_a_launcher_raise():
    with pytest.raises(ValueError, match="launch, or with torchrun"), devices.open_cluster(2):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [({"devices": 0}, "devices=0"), ({"timeout": 0}, "timeout=0"), ({"hosts": "tpu"}, "KERAS_BACKEND=jax")],
)
def test_wrong_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message), devices.open_cluster(**options):
        pass


def test_killed_process_is_reported_as_the_cause(capsys):
    assert min([1, -15, -9, 2], key=launching._failure_priority) == -9
    assert min([-15, 1], key=launching._failure_priority) == 1
    launching._report_exit(1, 2, 4711, -9)
    message = capsys.readouterr().err
    assert "Process 1 of 2 (pid 4711) was ended by SIGKILL" in message and "memory" in message and "--resume" in message


def test_importing_the_zoo_does_not_import_devices():
    code = "import sys, mobilenet_zoo; sys.exit('mobilenet_zoo.training.devices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_free_port_is_an_unprivileged_port():
    assert 1024 <= hosts_module.free_port() < 65536
