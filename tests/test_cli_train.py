"""How `mobilenet-zoo train` starts: with memory in huge pages, wherever nobody has said otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mobilenet_cli

pytestmark = [
    pytest.mark.across,
    pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting, which other systems don't have"),
]

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """if True:
    import os, sys
    from mobilenet_cli.zoo import begin_with_huge_pages
    begin_with_huge_pages()
    print([os.getpid(), os.environ["GLIBC_TUNABLES"], *sys.argv[1:]])
"""


@pytest.mark.parametrize("own, expected", [({}, "glibc.malloc.hugetlb=1"), ({"GLIBC_TUNABLES": ""}, "")])
def test_the_program_begins_anew_as_it_was(own, expected):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", PROGRAM, "a b", "--resume"]
    process = subprocess.Popen(command, env=environment | own, stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate()
    assert said == f"{[process.pid, expected, 'a b', '--resume']}\n"


@pytest.mark.parametrize("command, begins", [("train", True), ("list", False)])
def test_only_training_does(command, begins, monkeypatch):
    begun = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: begun.append(arguments))
    monkeypatch.setattr(sys, "argv", ["mobilenet-zoo", command, "--help"])
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # so that it is put back, whatever the command sets
    monkeypatch.delenv("GLIBC_TUNABLES")
    with pytest.raises(SystemExit):
        mobilenet_cli.main()
    assert begun == [sys.orig_argv] * begins
