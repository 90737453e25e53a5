"""The folder of a run: its record, its log, and a lock that keeps other processes out."""

import csv
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import keras

from mobilenet_common.errors import ArgumentError
from mobilenet_common.libraries import import_library
from mobilenet_common.writing import remove_unfinished, whole_file, write_text
from mobilenet_runtime.version import VERSION

RUN, RECIPE, LOG, CHECKPOINTS, BEST = "run.json", "recipe.yaml", "log.csv", "checkpoints", "best"
MODEL, REPORT, BOARD = "model", "report.html", "tensorboard"
_LIBRARIES = ("keras", "numpy", "grain", "tensorflow", "tensorflow-cpu", "jax", "torch")
_LOCK = ".lock"
_SHOWN = 8


class RunFolder:
    """A run's folder, locked for this process.

    Args:
        path: Path of the folder; created if it doesn't exist.

    Raises:
        ValueError: Another process uses the folder, or it can't be written.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._created_folders = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self._has_lock = (self.path / _LOCK).exists()
        filelock = import_library("filelock", "train", "Training")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(self.path / _LOCK, blocking=False)
            self._lock.acquire()
        except filelock.Timeout:
            raise ArgumentError(
                f"{self.path} is in use by another process: wait until that run ends, or choose another folder."
            ) from None
        except OSError as error:
            raise ArgumentError(f"{self.path} can't be written: {error.strerror}. Choose another folder.") from error
        remove_unfinished(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self) -> None:
        """Unlock the folder, and remove what the constructor created if no run was started."""
        try:
            if not self.is_begun() and not self._has_lock:
                (self.path / _LOCK).unlink(missing_ok=True)
                for folder in self._created_folders:
                    folder.rmdir()
        except OSError:  # The folder isn't empty, or Windows can't delete the open lock. No user files are lost.
            pass
        finally:
            self._lock.release()

    def is_begun(self) -> bool:
        """Return whether a run was started in the folder."""
        return (self.path / RUN).is_file()

    def begin(self, request, recipe):
        """Write the record and the recipe of a new run.

        Args:
            request: `{name: value}`, JSON-serializable, of the request that defines the run.
            recipe: A `Recipe`.
        """
        versions = {}
        for name in _LIBRARIES:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        record = {
            "asked": request,
            "command": sys.argv,
            "backend": keras.backend.backend(),
            "versions": {"mobilenet-zoo": VERSION, "python": platform.python_version()} | versions,
            "system": platform.platform(),
            "processors": os.cpu_count(),
        }
        self.write(RECIPE, recipe.to_yaml())
        self.write(RUN, json.dumps(record, indent=2) + "\n")

    def read_request(self):
        """Return the recorded request that was passed to `begin`."""
        return json.loads((self.path / RUN).read_text(encoding="utf-8"))["asked"]

    def write(self, name: str, text: str) -> None:
        """Write a text file of the run atomically."""
        write_text(self.path / name, text)

    def log(self, history):
        """Write the epochs' rows, one dictionary per epoch, to the CSV log."""
        columns = list(dict.fromkeys(name for row in history for name in row))
        with whole_file(self.path / LOG) as part, open(part, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(history)


def check_same(folder, recorded, requested):
    """Raise a `ValueError` that lists the differences if a request differs from that of the recorded run.

    Args:
        folder: Folder of the run.
        recorded: `{name: value}` of the request that started the run.
        requested: `{name: value}` of the current request.
    """
    recorded, requested = json.loads(json.dumps(recorded)), json.loads(json.dumps(requested))
    names = [name for name in {**recorded, **requested} if recorded.get(name) != requested.get(name)]
    if names:
        differences = "; ".join(
            f"{name} was {recorded.get(name)!r} and is {requested.get(name)!r}" for name in names[:_SHOWN]
        )
        raise ArgumentError(
            f"The run in {folder} can't be resumed with other arguments: {differences}. Pass the same arguments, or "
            "start a new run in another folder."
        )
