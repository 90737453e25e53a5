"""Checkpoints of a run: written whole or not at all, the last few and the best kept."""

import contextlib
import importlib
import logging
import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

from mobilenet_common.errors import ArgumentError, MobileNetError, integer
from mobilenet_zoo.training.libraries import library

_SEPARATOR = "/"


class Checkpoint(NamedTuple):
    """What was saved.

    Attributes:
        step: How many steps had been trained.
        arrays: `{name: array}`, as `capture` gives them.
        facts: What else there is to know, as JSON holds it.
    """

    step: int
    arrays: dict
    facts: dict


class Checkpoints:
    """The checkpoints in a folder, kept by Orbax.

    A checkpoint is written beside its place and then moved there, so that a process that dies leaves the ones before;
    an old one goes when a newer one is whole.

    Args:
        folder: Made where it isn't there.
        keep: How many of the last ones stay, at least 1.
        writes: Whether this process saves; of several that share the folder one does.
    """

    def __init__(self, folder, keep=3, writes=True):
        self.folder, self._writes = Path(folder).resolve(), writes
        self._orbax = library("orbax.checkpoint")
        self.folder.mkdir(parents=True, exist_ok=True)
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax tells every step of its own, and errors twice
        options = self._orbax.CheckpointManagerOptions(
            max_to_keep=integer("keep", keep, 1),
            enable_async_checkpointing=True,
            cleanup_tmp_directories=writes,
            read_only=not writes,
            create=False,
            multiprocessing_options=_alone(self._orbax),
        )
        self._manager = self._orbax.CheckpointManager(self.folder, options=options)

    def steps(self):
        """The steps that have a whole checkpoint, ascending."""
        if not self._writes:  # Orbax looks once, and another process has written since
            self._manager.reload()
        return sorted(self._manager.all_steps())

    def save(self, step, arrays, facts):
        """Writes a checkpoint in the background, after the one before is done.

        Raises:
            OSError: The checkpoint before this could not be written, for instance to a full disk.
        """
        args = self._orbax.args
        with self._written():
            self._manager.save(
                step, args=args.Composite(state=args.StandardSave(_nested(arrays)), facts=args.JsonSave(facts))
            )

    def wait(self):
        """Returns when everything is written.

        Raises:
            OSError: It could not be.
        """
        with self._written():
            self._manager.wait_until_finished()

    def load(self, step=None):
        """A `Checkpoint`: that of `step`, or the last.

        Raises:
            ValueError: There is none.
        """
        steps = self.steps()
        step = steps[-1] if step is None and steps else step
        if step not in steps:
            there = f" There are {', '.join(map(str, steps))}." if steps else ""
            raise ArgumentError(f"{self.folder} has no checkpoint{'' if step is None else f' of step {step}'}.{there}")
        args = self._orbax.args
        with _quiet():
            found = self._manager.restore(
                step, args=args.Composite(state=args.StandardRestore(), facts=args.JsonRestore())
            )
        return Checkpoint(step, _flat(found["state"]), found["facts"])

    def close(self):
        """Waits, and lets go of the folder."""
        with self._written():
            self._manager.close()

    @contextlib.contextmanager
    def _written(self):
        """Says of a system's error what it is and what is left: Orbax passes it on as text within a `ValueError`."""
        try:
            with _quiet():
                yield
        except (ValueError, OSError) as error:
            code = error.errno if isinstance(error, OSError) else _system_error(str(error))
            if code is None:
                raise
            steps = self.steps()
            whole = f"What is there stays, the last of step {steps[-1]}" if steps else "There is none before it"
            raise _Unwritten(
                code,
                f"A checkpoint can't be written to {self.folder}: {os.strerror(code)}. {whole}. Make room for it and "
                "go on with resume=True, --resume.",
            ) from None


class _Unwritten(MobileNetError, OSError):
    """Its text is the sentence alone, without the number that `OSError` puts before it."""

    def __str__(self):
        return self.strerror


def _system_error(text):
    """The number of the system's error that TensorStore wrote into its message, or None."""
    found = re.search(r"os_error_code='(\d+)'", text)
    return found and int(found[1])


def _alone(orbax):
    """Options with which Orbax waits for no other process."""
    index = importlib.import_module("jax").process_index()
    return orbax.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process{index}"
    )


def _nested(arrays):
    """`{"a/b": array}` as `{"a": {"b": array}}`, as Orbax's own tools show it."""
    nested = {}
    for name, array in arrays.items():
        *folders, last = name.split(_SEPARATOR)
        place = nested
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = array
    return nested


def _flat(nested, prefix=""):
    flat = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}{_SEPARATOR}")
        else:
            flat[prefix + name] = value
    return flat


@contextlib.contextmanager
def _quiet():
    """Orbax warns about sharding, which arrays of NumPy haven't."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
