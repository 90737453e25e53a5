"""The folder of a run: what was asked for, how it went, and that nobody else is writing there."""

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
    """A folder that one run at a time has for itself.

    Args:
        path: Made where it isn't there.

    Raises:
        ValueError: Another process has it, or it can't be written.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self._has_lock = (self.path / _LOCK).exists()
        filelock = import_library("filelock", "train", "Training")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(self.path / _LOCK, blocking=False)
            self._lock.acquire()
        except filelock.Timeout:
            raise ArgumentError(
                f"{self.path} is in use by another process: wait until that run has ended, or name another folder."
            ) from None
        except OSError as error:
            raise ArgumentError(f"{self.path} can't be written: {error.strerror}. Name another folder.") from error
        remove_unfinished(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self) -> None:
        """Let another run have the folder, and leave no trace where none was begun."""
        try:
            if not self.is_begun() and not self._has_lock:
                (self.path / _LOCK).unlink(missing_ok=True)
                for folder in self._made:
                    folder.rmdir()
        except OSError:  # not empty, or Windows keeps files that are open: nothing of the user's is lost
            pass
        finally:
            self._lock.release()

    def is_begun(self) -> bool:
        """Return whether a run has been here."""
        return (self.path / RUN).is_file()

    def begin(self, asked, recipe):
        """Write down what is asked for.

        Args:
            asked: `{name: value}`, as JSON holds it, of what makes a run what it is.
            recipe: A `Recipe`.
        """
        versions = {}
        for name in _LIBRARIES:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        record = {
            "asked": asked,
            "command": sys.argv,
            "backend": keras.backend.backend(),
            "versions": {"mobilenet-zoo": VERSION, "python": platform.python_version()} | versions,
            "system": platform.platform(),
            "processors": os.cpu_count(),
        }
        self.write(RECIPE, recipe.to_yaml())
        self.write(RUN, json.dumps(record, indent=2) + "\n")

    def asked(self):
        """Return what `begin` was given."""
        return json.loads((self.path / RUN).read_text(encoding="utf-8"))["asked"]

    def write(self, name: str, text: str) -> None:
        """Write a file of the run, whole or not at all."""
        write_text(self.path / name, text)

    def log(self, history):
        """Write the table of the epochs, a dictionary each, in CSV."""
        columns = list(dict.fromkeys(name for row in history for name in row))
        with whole_file(self.path / LOG) as part, open(part, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(history)


def check_same(folder, before, now):
    """Raise the `ValueError` that says what differs between the run in a folder and the one that is to go on.

    Args:
        folder: Of the run.
        before: `{name: value}`, what was asked for when it began.
        now: The same of what is asked for now.
    """
    before, now = json.loads(json.dumps(before)), json.loads(json.dumps(now))
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if names:
        found = "; ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in names[:_SHOWN])
        raise ArgumentError(
            f"The run in {folder} can't be resumed as another one: {found}. Ask for the same, or begin anew."
        )
