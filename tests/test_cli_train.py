"""`mobilenet-zoo train` restarts itself to use huge pages, unless the user configured glibc."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mobilenet_cli

pytestmark = [
    pytest.mark.across,
    pytest.mark.skipif(sys.platform != "linux", reason="needs glibc"),
]

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """if True:
    import os, sys
    from mobilenet_cli.zoo import begin_with_huge_pages
    begin_with_huge_pages()
    print([os.getpid(), os.environ["GLIBC_TUNABLES"], *sys.argv[1:]])
"""


@pytest.mark.parametrize("variables, expected", [({}, "glibc.malloc.hugetlb=1"), ({"GLIBC_TUNABLES": ""}, "")])
def test_restart_keeps_process_id_and_arguments(variables, expected):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", PROGRAM, "a b", "--resume"]
    process = subprocess.Popen(command, env=environment | variables, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate()
    assert output == f"{[process.pid, expected, 'a b', '--resume']}\n"


@pytest.mark.parametrize("command, restarts", [("train", True), ("list", False)])
def test_only_train_restarts(command, restarts, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: calls.append(arguments))
    monkeypatch.setattr(sys, "argv", ["mobilenet-zoo", command, "--help"])
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # registers the variable, so that monkeypatch restores it
    monkeypatch.delenv("GLIBC_TUNABLES")
    with pytest.raises(SystemExit):
        mobilenet_cli.main()
    assert calls == [sys.orig_argv] * restarts
