"""export: processes that die and disks that fill cost nothing that was there."""

import errno
import os
import signal
import sys
from pathlib import Path

import keras
import pytest

import mobilenet_zoo
from mobilenet_common import writing
from mobilenet_common.errors import ExportError
from mobilenet_common.writing import replace_all
from mobilenet_zoo.exporting import process
from mobilenet_zoo.exporting.formats import FORMATS, find_format
from tests.zoo.exporting import shared
from tests.zoo.exporting.shared import (
    PLACES,
    no_process,
)

pytestmark = pytest.mark.across


def test_a_process_that_is_killed(model, old, monkeypatch):
    kill = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    monkeypatch.setattr(process.subprocess, "Popen", instead(["-c", kill]))
    with pytest.raises(ExportError, match=r"exports under torch was ended by SIGKILL, as when memory is short"):
        mobilenet_zoo.export(model, old)


def test_a_process_that_fails(model, old, monkeypatch):
    monkeypatch.setattr(process.subprocess, "Popen", instead(["-c", "raise RuntimeError('out of luck')"]))
    with pytest.raises(ExportError, match=r"exports under torch ended with status 1: RuntimeError: out of luck"):
        mobilenet_zoo.export(model, old)


def test_a_process_that_hangs(model, old, monkeypatch):
    monkeypatch.setattr(process, "_TIMEOUT", 0.5)
    monkeypatch.setattr(process.subprocess, "Popen", instead(["-c", "import time; time.sleep(60)"]))
    with pytest.raises(ExportError, match=r"exports under torch did not end within 0.5 s"):
        mobilenet_zoo.export(model, old)


def test_what_the_process_has_to_say(model, old, monkeypatch):
    """A refusal is reported in its own words, also if other lines follow in what it prints."""
    say = (
        "import json, pathlib, sys; print('noise');"
        "pathlib.Path(sys.argv[-1]).with_name('answer.json').write_text(json.dumps({'error': 'cannot do it'}))"
    )
    monkeypatch.setattr(process.subprocess, "Popen", instead(["-c", say], keeps=1))
    with pytest.raises(ExportError, match=r"^cannot do it$"):
        mobilenet_zoo.export(model, old)


def instead(arguments, keeps=0):
    """`subprocess.Popen` of another program than the one asked for, with the last arguments of that."""
    start = process.subprocess.Popen

    def other(command, **options):
        assert command[1:3] == ["-m", "mobilenet_zoo.exporting.worker"]
        return start([sys.executable, *arguments, *command[len(command) - keeps :]], **options)

    return other


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_when_the_model_is_saved(model, old, monkeypatch):
    monkeypatch.setattr(process, "run", no_process)
    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(ExportError, match=r"a.onnx can't be written: No space left.*What was there is there still"):
        mobilenet_zoo.export(model, old)


def test_a_disk_that_is_full_when_the_file_is_written(model, old, monkeypatch):
    def run(backend, model_file, modules, jobs, folder):
        Path(jobs[0].path).write_bytes(b"ha")
        full()

    monkeypatch.setattr(process, "run", run)
    with pytest.raises(ExportError, match=r"a.onnx can't be written: No space left"):
        mobilenet_zoo.export(model, old)


def test_a_folder_that_can_not_be_written(model, old, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(process, "run", no_process)
    with pytest.raises(ExportError, match=r"b.onnx can't be written: a file is where its folder"):
        mobilenet_zoo.export(model, old / "b.onnx")
    monkeypatch.setattr(writing.tempfile, "mkdtemp", forbidden)
    with pytest.raises(ExportError, match=r"a.onnx can't be written: Permission denied"):
        mobilenet_zoo.export(model, old)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_can_not_take_its_place(format, model, tmp_path, monkeypatch):
    """All that was there stays, also of a file of two parts and of a folder."""
    path = tmp_path / PLACES[format]
    if format == "saved_model":
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"old")
    else:
        for file in find_format(path).files(path):
            file.write_bytes(b"old")
    before = contents(tmp_path)
    replace = os.replace

    def fails_in_the_end(source, target):
        if Path(target) == path and not Path(source).name.startswith("old_"):
            full()
        replace(source, target)

    monkeypatch.setattr(process, "run", shared.nothing)
    monkeypatch.setattr(writing.os, "replace", fails_in_the_end)
    with pytest.raises(ExportError, match="can't be written: No space left"):
        mobilenet_zoo.export(model, path, verify=False)
    assert contents(tmp_path) == before


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_and_folders_take_their_place(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.xml").write_bytes(name.encode())
        (tmp_path / name / "folder").mkdir()
        (tmp_path / name / "folder" / f"{name}.txt").write_bytes(name.encode())
    names = ["a.xml", "folder"]
    replace_all([tmp_path / "new" / name for name in names], [tmp_path / "old" / name for name in names])
    assert contents(tmp_path / "old") == {"a.xml": b"new", "folder/new.txt": b"new"}
