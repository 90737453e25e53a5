"""Checkpoints of a run, written atomically by a background thread; the latest ones are kept."""

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
_FACTS = "facts"  # The key of the JSON text in a file's header.


class Checkpoint(NamedTuple):
    """A saved state.

    Attributes:
        step: Number of steps trained before it was saved.
        arrays: `{name: array}`, as `capture` returns them.
        facts: Additional JSON-serializable information.
    """

    step: int
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


class Checkpoints:
    """A folder of checkpoints, one file `STEP.safetensors` each, with the facts as JSON in the header.

    A checkpoint is written to a temporary name and then renamed, so earlier checkpoints remain intact if the process
    dies. The oldest checkpoint is removed once a newer one is complete. Any safetensors reader can open the files.

    Args:
        folder: Folder of the checkpoints; created if it doesn't exist.
        keep: Number of latest checkpoints to keep, at least 1.
        writes: Whether this process saves checkpoints. Only one of the processes that share the folder may save.
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
        """Return the steps of all complete checkpoints, in ascending order."""
        return sorted(int(path.stem) for path in self.folder.glob(f"*{_ENDING}") if path.stem.isdigit())

    def save(self, step: int, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Write a checkpoint in the background, once the previous one is written.

        Args:
            step: Number of steps trained so far. An existing checkpoint of the same step is replaced.
            arrays: `{name: array}` to save. The arrays must not change until `wait` returns.
            facts: JSON-serializable information to save with them.

        Raises:
            OSError: The previous checkpoint could not be written, for example because the disk is full.
        """
        self.wait()
        json_text = json.dumps(facts)  # Serialize here, so that an error reaches the caller.
        self._thread = threading.Thread(target=self._write, args=(step, arrays, json_text), name="checkpoint")
        self._thread.start()

    def _write(self, step, arrays, json_text):
        try:
            with whole_file(self._path(step)) as part:
                save_file(
                    {name: np.asarray(array, order="C") for name, array in arrays.items()}, part, {_FACTS: json_text}
                )
            for old in self.steps()[: -self._keep]:
                self._path(old).unlink()
        except (OSError, safetensors.SafetensorError) as error:
            self._error = _system_error(error)

    def wait(self) -> None:
        """Wait until the pending checkpoint is written.

        Raises:
            OSError: The checkpoint could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            steps = self.steps()
            latest = f"The checkpoint of step {steps[-1]} is intact" if steps else "There is no earlier checkpoint"
            raise NotWritten(
                error.errno,
                f"A checkpoint can't be written to {self.folder}: {error.strerror}. {latest}. Free some space and "
                "resume the run with resume=True or --resume.",
            ) from error

    def load(self, step: int | None = None) -> Checkpoint:
        """Return the checkpoint of `step`, or the latest checkpoint if `step` is None.

        Raises:
            ValueError: The checkpoint doesn't exist or is damaged.
        """
        steps = self.steps()
        step = steps[-1] if step is None and steps else step
        if step is None or step not in steps:
            available = f" Available steps: {', '.join(map(str, steps))}." if steps else ""
            which = "" if step is None else f" of step {step}"
            raise ArgumentError(f"{self.folder} has no checkpoint{which}.{available}")
        path = self._path(step)
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}
                facts = json.loads((file.metadata() or {})[_FACTS])
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise ArgumentError(f"{path} is damaged ({error}): delete it to resume from the previous one.") from error
        return Checkpoint(step, arrays, facts)

    def close(self) -> None:
        """Wait until the pending checkpoint is written."""
        self.wait()

    def _path(self, step):
        return self.folder / f"{step}{_ENDING}"


class NotWritten(MobileNetError, OSError):
    """Raised when a checkpoint can't be written. Its text is the message alone, without the error number."""

    def __str__(self):
        return str(self.strerror)


def _system_error(error):
    """Return an `OSError` with errno and strerror; safetensors reports the system's error only in its message."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    number = re.search(r"(?:os error |code: )(\d+)", str(error))  # The wording depends on the safetensors version.
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(0, str(error))
