"""Checkpoints of a run: written whole or not at all, in the background, the last few kept."""

import json
import os
import re
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
from safetensors.numpy import save_file

from mobilenet_common.errors import ArgumentError, MobileNetError, integer
from mobilenet_common.types import PathLike
from mobilenet_common.writing import remove_unfinished, whole_file

_ENDING = ".safetensors"
_FACTS = "facts"  # the key of the JSON text in a file's header


class Checkpoint(NamedTuple):
    """What was saved.

    Attributes:
        step: How many steps had been trained.
        arrays: `{name: array}`, as `capture` gives them.
        facts: What else there is to know, as JSON holds it.
    """

    step: int
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints in a folder: `STEP.safetensors` each, with the facts in the header.

    A checkpoint is written beside its place and then moved there, so that a process that dies leaves the ones before.
    An old one is removed when a newer one is whole. Any safetensors reader opens them.

    Args:
        folder: Made where it is missing.
        keep: How many of the last ones to keep, at least 1.
        writes: Whether this process saves; of several that share the folder one does.
    """

    def __init__(self, folder: PathLike, keep: int = 3, writes: bool = True):
        self.folder = Path(folder).resolve()
        self._keep = integer("keep", keep, 1)
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        if writes:
            remove_unfinished(self.folder)

    def steps(self) -> list[int]:
        """Return the steps that have a whole checkpoint, ascending."""
        return sorted(int(path.stem) for path in self.folder.glob(f"*{_ENDING}") if path.stem.isdigit())

    def save(self, step: int, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Write a checkpoint in the background, after the one before is done.

        Args:
            step: How many steps were trained; a checkpoint of the same step is replaced.
            arrays: They must not change until `wait` returns.
            facts: What JSON can hold.

        Raises:
            OSError: The checkpoint before this could not be written, for instance to a full disk.
        """
        self.wait()
        text = json.dumps(facts)  # here, so that what JSON can't hold is an error of the caller
        self._thread = threading.Thread(target=self._write, args=(step, arrays, text), name="checkpoint")
        self._thread.start()

    def _write(self, step, arrays, text):
        try:
            with whole_file(self._path(step)) as part:
                save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, part, {_FACTS: text})
            for old in self.steps()[: -self._keep]:
                self._path(old).unlink()
        except (OSError, safetensors.SafetensorError) as error:
            self._error = _system_error(error)

    def wait(self) -> None:
        """Return when everything is written.

        Raises:
            OSError: It could not be.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            steps = self.steps()
            whole = f"The checkpoint of step {steps[-1]} is whole" if steps else "There is none before it"
            raise NotWritten(
                error.errno,
                f"A checkpoint can't be written to {self.folder}: {error.strerror}. {whole}. Make room and resume with "
                "resume=True, --resume.",
            ) from error

    def load(self, step: int | None = None) -> Checkpoint:
        """Return the checkpoint of `step`, or the last.

        Raises:
            ValueError: There is none, or it is damaged.
        """
        steps = self.steps()
        step = steps[-1] if step is None and steps else step
        if step is None or step not in steps:
            available = f" There are {', '.join(map(str, steps))}." if steps else ""
            which = "" if step is None else f" of step {step}"
            raise ArgumentError(f"{self.folder} has no checkpoint{which}.{available}")
        path = self._path(step)
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}
                facts = json.loads((file.metadata() or {})[_FACTS])
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise ArgumentError(f"{path} is damaged ({error}): remove it to resume from the one before.") from error
        return Checkpoint(step, arrays, facts)

    def close(self) -> None:
        """Wait for what is being written."""
        self.wait()

    def _path(self, step):
        return self.folder / f"{step}{_ENDING}"


class NotWritten(MobileNetError, OSError):
    """A checkpoint could not be written; its text is the sentence alone, without the number of `OSError`."""

    def __str__(self):
        return str(self.strerror)


def _system_error(error):
    """Return an `OSError` with number and text: safetensors gives those of the system in its message only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    number = re.search(r"(?:os error |code: )(\d+)", str(error))  # as releases of safetensors word it
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(0, str(error))
