"""Callbacks of a run: checkpoints, the log, the check for a finite loss, and a clean stop on SIGTERM."""

import math
import signal
import threading
import time
from typing import Any

import keras

from mobilenet_common.errors import MobileNetError
from mobilenet_zoo.training.averaging import averaged_weights
from mobilenet_zoo.training.devices import Agreed
from mobilenet_zoo.training.state import capture, not_finite, random_state, restore, restore_random_state

_SYNC_EVERY = 10  # Steps. Reading the loss waits for the device, and exchanging flags waits for the other processes.
_WITHOUT_RANDOM = ("model", "seeds", "metrics", "optimizer")


class NotFinite(MobileNetError, ValueError):
    """Raised when the loss or a weight becomes NaN or infinite; the run has been stopped.

    Attributes:
        step: Number of steps trained so far.
        checkpoint: Step of the last good checkpoint, or None if there is none.
    """

    def __init__(self, message: str, step: int, checkpoint: int | None):
        super().__init__(message)
        self.step, self.checkpoint = step, checkpoint


class Terminated(Agreed):
    """Raised after SIGTERM, once the run has been saved.

    Attributes:
        step: Number of steps trained so far.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class Position:
    """The progress of a run: steps and epochs over all its phases, and the log row of each finished epoch."""

    def __init__(self, steps_per_epoch, batch_size):
        self.steps_per_epoch, self.batch_size, self.step, self.history = steps_per_epoch, batch_size, 0, []

    @property
    def epoch(self):
        """Index of the epoch that contains the next step, from 0."""
        return self.step // self.steps_per_epoch

    def is_within_an_epoch(self) -> bool:
        """Return whether the current epoch is partly trained."""
        return self.step % self.steps_per_epoch != 0

    def is_sync_step(self) -> bool:
        """Return whether to read the loss and synchronize processes: every tenth step and at the end of an epoch."""
        return self.step % _SYNC_EVERY == 0 or not self.is_within_an_epoch()


class Callbacks(keras.callbacks.CallbackList):
    """Passes each step's logs on without converting them: Keras's conversion to numbers waits for the device."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs=logs)


class Saving(keras.callbacks.Callback):
    """Restores a run from its checkpoint, saves it regularly, and saves and stops it on SIGTERM.

    Args:
        checkpoints: `Checkpoints` of the run.
        best: Separate `Checkpoints` for the best epoch.
        position: `Position` of the run.
        every: Seconds between two checkpoints. At the end of an epoch, half of that is enough. The end of the run is
            always saved, so that resuming a finished run doesn't train it again.
        epochs: Number of epochs of the whole run.
        cluster: `Cluster` of the run: its first process writes, and all processes stop at the same step.
    """

    def __init__(self, checkpoints, best, position, every, epochs, cluster):
        super().__init__()
        self.checkpoints, self.best, self.position = checkpoints, best, position
        self._every, self._epochs = every, epochs
        self._cluster, self._writes = cluster, cluster.is_chief
        self._stop_requested, self._previous_handler = threading.Event(), None
        self._saved_at = time.monotonic()
        self._metrics = self._random = None
        self.phase, self.blocked_s = 0, 0.0

    def begin(self, model, phase, checkpoint=None):
        """Prepare for the `fit` of a phase, restoring the checkpoint if one is given.

        If the checkpoint is from an earlier phase, only the weights and seeds are restored.
        """
        self.phase = phase
        if checkpoint is not None:
            is_same_phase = checkpoint.facts["phase"] == phase
            restore(model, checkpoint.arrays, _WITHOUT_RANDOM if is_same_phase else ("model", "seeds"))
            self._metrics = checkpoint.arrays if is_same_phase and self.position.is_within_an_epoch() else None
            self._random = checkpoint.arrays if self._writes else None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if threading.current_thread() is threading.main_thread() and self._previous_handler is None:
            self._previous_handler = signal.signal(signal.SIGTERM, lambda *_: self._stop_requested.set())

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._metrics is not None:  # Keras has just reset the metrics.
            restore(self.model, self._metrics, ("metrics",))
            self._metrics = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Starting `fit` draws random numbers under PyTorch, which an uninterrupted run would not have drawn.
        if self._random is not None:
            restore_random_state(self._random)
            self._random = None

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._random = random_state()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.position.is_sync_step() and not math.isfinite(float((logs or {}).get("loss", 0.0))):
            self._stop("the loss")
        if self.position.is_within_an_epoch():  # A finished epoch is evaluated before it is saved.
            self._save_if(self._every)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._save_if(self._every / 2 if self.position.epoch < self._epochs else 0)

    def _save_if(self, seconds):
        stop, is_due = self._agree(seconds)
        if stop:
            self.save()
            self.checkpoints.wait()
            raise Terminated(
                f"The run was asked to stop. It is saved at step {self.position.step}; resume it with --resume.",
                self.position.step,
            )
        if is_due:
            self.save()

    def _agree(self, seconds):
        """Return `(stop, save)`, the same in every process.

        Any process can request the stop; the clock of the first process decides whether to save.
        """
        if self._cluster.process_count > 1 and not self.position.is_sync_step():
            return False, False
        is_due = time.monotonic() - self._saved_at >= seconds
        flags = self._cluster.gather([self._stop_requested.is_set(), is_due])
        return any(stop for stop, _ in flags), flags[0][1]

    def save(self) -> None:
        """Write a checkpoint of the current state.

        Every process must call it, because reading the state under JAX needs all processes.
        """
        start = time.monotonic()
        arrays = capture(self.model)
        if bad := not_finite(arrays):
            self._stop(bad[0].partition("/")[2])
        if self._writes:
            self.checkpoints.save(self.position.step, arrays, {"phase": self.phase, "history": self.position.history})
        self._saved_at = time.monotonic()
        self.blocked_s += self._saved_at - start

    def save_best(self) -> None:
        """Save the weights that were just evaluated (the averages, if any) as the best; every process must call it."""
        # A run resumed from before its best epoch reaches that epoch again, so it may be saved already.
        if not self._cluster.broadcast_value(self._writes and self.position.step not in self.best.steps()):
            return
        with averaged_weights(self.model):
            arrays = {name: array for name, array in capture(self.model).items() if name.startswith("model/")}
        if self._writes:
            self.best.save(self.position.step, arrays, {"row": self.position.history[-1]})

    def close(self) -> None:
        """Wait until all checkpoints are written, and restore the previous handler of SIGTERM."""
        if self._previous_handler is not None:
            signal.signal(signal.SIGTERM, self._previous_handler)
            self._previous_handler = None
        self.checkpoints.close()
        self.best.close()

    def _stop(self, what):
        self.checkpoints.wait()
        steps, last_checkpoint = self.checkpoints.steps(), "There is no checkpoint yet."
        if steps:
            last_checkpoint = f"The last good checkpoint is from step {steps[-1]} in {self.checkpoints.folder}."
        raise NotFinite(
            f"After step {self.position.step} {what} is not finite, and the run was stopped. {last_checkpoint} Start "
            "again with a lower optimizer.learning_rate, a longer warm-up or optimizer.clip_norm.",
            self.position.step,
            steps[-1] if steps else None,
        )


class Log(keras.callbacks.Callback):
    """Counts steps, logs each epoch to the position, `log.csv` and TensorBoard, and saves the best epoch's weights.

    Args:
        position: `Position`, which this callback advances.
        folder: `RunFolder`, or None in a process that doesn't write.
        pipeline: Training `Pipeline`, whose `waited_s` is logged.
        validation_pipeline: Validation `Pipeline`. The damaged images of both pipelines are counted.
        evaluate: Function that returns `{metric: value}` on the validation set.
        board: `tensorboardX.SummaryWriter`, or None.
        saving: `Saving`, which saves the best weights.
    """

    def __init__(self, position, folder, pipeline, validation_pipeline, evaluate, board, saving):
        super().__init__()
        self.position, self.folder, self._evaluate = position, folder, evaluate
        self.pipeline, self.validation_pipeline = pipeline, validation_pipeline
        self.board, self.saving = board, saving

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch_start, self._first_step, self._waited = time.monotonic(), self.position.step, self.pipeline.waited_s

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.position.step = self._first_step + batch + 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        seconds = time.monotonic() - self._epoch_start
        steps = self.position.step - self._first_step
        row = {"epoch": self.position.step // self.position.steps_per_epoch, "step": self.position.step}
        row |= {name: float(value) for name, value in (logs or {}).items()}
        row |= {f"val_{name}": float(value) for name, value in self._evaluate().items()}
        row["learning_rate"] = current_learning_rate(self.model)
        row["images_per_second"] = steps * self.position.batch_size / seconds
        row["waiting"] = (self.pipeline.waited_s - self._waited) / seconds
        row["damaged"] = len(self.pipeline.damaged) + len(self.validation_pipeline.damaged)
        is_best = ranking_key(row) > max(
            (ranking_key(earlier) for earlier in self.position.history), default=(-math.inf,)
        )
        self.position.history.append(row)
        if self.board is not None:
            for name, value in row.items():
                if name not in ("epoch", "step"):
                    self.board.add_scalar(name, value, row["step"])
            self.board.flush()
        if self.folder is not None:
            self.folder.log(self.position.history)
        if is_best:
            self.saving.save_best()


def ranking_key(row):
    """Return the sort key that ranks epochs: higher validation accuracy first, then lower validation loss."""
    return row.get("val_accuracy", 0.0), -row.get("val_loss", row["loss"])


def current_learning_rate(model):
    """Return the learning rate of the next step."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
