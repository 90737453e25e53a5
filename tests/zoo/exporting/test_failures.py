"""`export`: failing processes and full disks leave existing files unchanged."""

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
    FILE_NAMES,
    fail_if_called,
)

pytestmark = pytest.mark.across


def test_killed_process_raises_export_error(model, existing_file, monkeypatch):
    kill = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    monkeypatch.setattr(process.subprocess, "Popen", popen_of(["-c", kill]))
    with pytest.raises(ExportError, match=r"exports under torch was terminated by SIGKILL, probably because memory"):
        mobilenet_zoo.export(model, existing_file)


def test_failed_process_raises_export_error(model, existing_file, monkeypatch):
    monkeypatch.setattr(process.subprocess, "Popen", popen_of(["-c", "raise RuntimeError('out of luck')"]))
    with pytest.raises(ExportError, match=r"exports under torch exited with status 1: RuntimeError: out of luck"):
        mobilenet_zoo.export(model, existing_file)


def test_process_that_times_out_raises_export_error(model, existing_file, monkeypatch):
    monkeypatch.setattr(process, "_TIMEOUT", 0.5)
    monkeypatch.setattr(process.subprocess, "Popen", popen_of(["-c", "import time; time.sleep(60)"]))
    with pytest.raises(ExportError, match=r"exports under torch did not finish within 0.5 s"):
        mobilenet_zoo.export(model, existing_file)


def test_error_of_the_process_is_raised(model, existing_file, monkeypatch):
    """The error is raised as the process reports it, whatever else the process prints."""
    program = (
        "import json, pathlib, sys; print('noise');"
        "pathlib.Path(sys.argv[-1]).with_name('results.json').write_text(json.dumps({'error': 'cannot do it'}))"
    )
    monkeypatch.setattr(process.subprocess, "Popen", popen_of(["-c", program], kept_arguments=1))
    with pytest.raises(ExportError, match=r"^cannot do it$"):
        mobilenet_zoo.export(model, existing_file)


def popen_of(arguments, kept_arguments=0):
    """Return a `subprocess.Popen` that runs Python with `arguments` and the last arguments of the original command."""
    start = process.subprocess.Popen

    def popen(command, **options):
        assert command[1:3] == ["-m", "mobilenet_zoo.exporting.worker"]
        return start([sys.executable, *arguments, *command[len(command) - kept_arguments :]], **options)

    return popen


def raise_disk_full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_while_saving_the_model_raises(model, existing_file, monkeypatch):
    monkeypatch.setattr(process, "run", fail_if_called)
    monkeypatch.setattr(keras.Model, "save", raise_disk_full)
    with pytest.raises(ExportError, match=r"a.onnx can't be written: No space left.*Existing files are unchanged"):
        mobilenet_zoo.export(model, existing_file)


def test_full_disk_while_writing_the_file_raises(model, existing_file, monkeypatch):
    def run(backend, model_file, modules, jobs, folder):
        Path(jobs[0].path).write_bytes(b"ha")
        raise_disk_full()

    monkeypatch.setattr(process, "run", run)
    with pytest.raises(ExportError, match=r"a.onnx can't be written: No space left"):
        mobilenet_zoo.export(model, existing_file)


def test_folder_that_is_not_writable_raises(model, existing_file, monkeypatch):
    def raise_permission_error(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(process, "run", fail_if_called)
    with pytest.raises(ExportError, match=r"b.onnx can't be written: a file exists where its parent folder"):
        mobilenet_zoo.export(model, existing_file / "b.onnx")
    monkeypatch.setattr(writing.tempfile, "mkdtemp", raise_permission_error)
    with pytest.raises(ExportError, match=r"a.onnx can't be written: Permission denied"):
        mobilenet_zoo.export(model, existing_file)


@pytest.mark.parametrize("format", FORMATS)
def test_failed_replacement_restores_existing_files(format, model, tmp_path, monkeypatch):
    """Existing files are restored, including those of a folder and of a format with two files."""
    path = tmp_path / FILE_NAMES[format]
    if format == "saved_model":
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"old")
    else:
        for file in find_format(path).files(path):
            file.write_bytes(b"old")
    before = contents(tmp_path)
    replace = os.replace

    def replace_or_fail(source, target):
        if Path(target) == path and not Path(source).name.startswith("old_"):
            raise_disk_full()
        replace(source, target)

    monkeypatch.setattr(process, "run", shared.write_dummy_files)
    monkeypatch.setattr(writing.os, "replace", replace_or_fail)
    with pytest.raises(ExportError, match="can't be written: No space left"):
        mobilenet_zoo.export(model, path, verify=False)
    assert contents(tmp_path) == before


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_replace_all_replaces_files_and_folders(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.xml").write_bytes(name.encode())
        (tmp_path / name / "folder").mkdir()
        (tmp_path / name / "folder" / f"{name}.txt").write_bytes(name.encode())
    names = ["a.xml", "folder"]
    replace_all([tmp_path / "new" / name for name in names], [tmp_path / "old" / name for name in names])
    assert contents(tmp_path / "old") == {"a.xml": b"new", "folder/new.txt": b"new"}
