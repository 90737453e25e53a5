"""What happens between the steps of a run: it is saved, watched, stopped and reported."""

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

_LOOK_EVERY = 10  # steps: to ask for the loss is to wait for the device, and other processes take time to answer
_WITHOUT_RANDOM = ("model", "seeds", "metrics", "optimizer")


class NotFinite(MobileNetError, ValueError):
    """The loss, or a weight, became NaN or infinity, and the run was stopped.

    Attributes:
        step: How many steps had been trained.
        checkpoint: The step of the last good checkpoint, or None.
    """

    def __init__(self, message: str, step: int, checkpoint: int | None):
        super().__init__(message)
        self.step, self.checkpoint = step, checkpoint


class Terminated(Agreed):
    """The process was asked to end, and the run is saved.

    Attributes:
        step: How many steps had been trained.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class Position:
    """How far a run has come: steps and epochs over all its phases, and what each epoch was like."""

    def __init__(self, steps_per_epoch, batch_size):
        self.steps_per_epoch, self.batch_size, self.step, self.history = steps_per_epoch, batch_size, 0, []

    @property
    def epoch(self):
        """The number of the epoch that the next step belongs to."""
        return self.step // self.steps_per_epoch

    def is_within_an_epoch(self) -> bool:
        """Return whether some of an epoch's steps are trained, and some are not."""
        return self.step % self.steps_per_epoch != 0

    def is_looked_at(self) -> bool:
        """Return whether what the step gave is looked at: after each tenth, and after the last of an epoch."""
        return self.step % _LOOK_EVERY == 0 or not self.is_within_an_epoch()


class Callbacks(keras.callbacks.CallbackList):
    """Hands what a step gave on as it is; Keras's own makes numbers of it, and so waits for the device each time."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs=logs)


class Saving(keras.callbacks.Callback):
    """Takes a run up where it was left, and saves it again and again, and when the process is asked to end (SIGTERM).

    Args:
        checkpoints: `Checkpoints`.
        best: `Checkpoints` for the best epoch, kept apart.
        position: `Position`.
        every: Seconds from one checkpoint to the next. At an epoch's end there is one if half of that has gone by, and
            at the end of the run always, so that a finished run is not trained again when it is resumed.
        epochs: Of the whole run.
        cluster: `Cluster`: its first process writes, and all of them stop at the same step.
    """

    def __init__(self, checkpoints, best, position, every, epochs, cluster):
        super().__init__()
        self.checkpoints, self.best, self.position = checkpoints, best, position
        self._every, self._epochs = every, epochs
        self._cluster, self._writes = cluster, cluster.is_chief
        self._asked, self._before = threading.Event(), None
        self._saved_at = time.monotonic()
        self._metrics = self._random = None
        self.phase, self.blocked_s = 0, 0.0

    def begin(self, model, phase, checkpoint=None):
        """Restore what the checkpoint has of a phase, if there is one, before its `fit`.

        Of an earlier phase's those are the weights alone.
        """
        self.phase = phase
        if checkpoint is not None:
            same = checkpoint.facts["phase"] == phase
            restore(model, checkpoint.arrays, _WITHOUT_RANDOM if same else ("model", "seeds"))
            self._metrics = checkpoint.arrays if same and self.position.is_within_an_epoch() else None
            self._random = checkpoint.arrays if self._writes else None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if threading.current_thread() is threading.main_thread() and self._before is None:
            self._before = signal.signal(signal.SIGTERM, lambda *_: self._asked.set())

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._metrics is not None:  # Keras has just set them to 0
            restore(self.model, self._metrics, ("metrics",))
            self._metrics = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Beginning a `fit` draws numbers, under PyTorch, that one which goes on would not draw.
        if self._random is not None:
            restore_random_state(self._random)
            self._random = None

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._random = random_state()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.position.is_looked_at() and not math.isfinite(float((logs or {}).get("loss", 0.0))):
            self._stop("the loss")
        if self.position.is_within_an_epoch():  # at its end it has to be evaluated first
            self._save_if(self._every)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._save_if(self._every / 2 if self.position.epoch < self._epochs else 0)

    def _save_if(self, seconds):
        stop, due = self._agreed(seconds)
        if stop:
            self.save()
            self.checkpoints.wait()
            raise Terminated(
                f"The run was asked to end. It is saved at step {self.position.step}; resume it with --resume.",
                self.position.step,
            )
        if due:
            self.save()

    def _agreed(self, seconds):
        """Return whether to stop, by any process's wish, and whether to save, by the first's clock: alike for all."""
        if self._cluster.process_count > 1 and not self.position.is_looked_at():
            return False, False
        due = time.monotonic() - self._saved_at >= seconds
        answers = self._cluster.gather([self._asked.is_set(), due])
        return any(stop for stop, _ in answers), answers[0][1]

    def save(self) -> None:
        """Write a checkpoint of this moment. Every process calls it: under JAX reading the state takes all of them."""
        start = time.monotonic()
        arrays = capture(self.model)
        if bad := not_finite(arrays):
            self._stop(bad[0].partition("/")[2])
        if self._writes:
            self.checkpoints.save(self.position.step, arrays, {"phase": self.phase, "history": self.position.history})
        self._saved_at = time.monotonic()
        self.blocked_s += self._saved_at - start

    def save_best(self) -> None:
        """Keep the weights that were just evaluated, the averages where there are some, as the best; as `save`."""
        # A run resumed from before its best epoch comes to it again.
        if not self._cluster.broadcast_value(self._writes and self.position.step not in self.best.steps()):
            return
        with averaged_weights(self.model):
            arrays = {name: array for name, array in capture(self.model).items() if name.startswith("model/")}
        if self._writes:
            self.best.save(self.position.step, arrays, {"row": self.position.history[-1]})

    def close(self) -> None:
        """Wait for what is being written; SIGTERM ends the process again as before."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None
        self.checkpoints.close()
        self.best.close()

    def _stop(self, what):
        self.checkpoints.wait()
        steps, kept = self.checkpoints.steps(), "There is no checkpoint yet."
        if steps:
            kept = f"The last good checkpoint is that of step {steps[-1]} in {self.checkpoints.folder}."
        raise NotFinite(
            f"After step {self.position.step} {what} is not finite, and the run was stopped. {kept} Begin anew with a "
            "lower optimizer.learning_rate, a longer warm-up or optimizer.clip_norm.",
            self.position.step,
            steps[-1] if steps else None,
        )


class Log(keras.callbacks.Callback):
    """Counts steps, and keeps what each epoch was like: in the position, the log, TensorBoard, and the best checkpoint.

    Args:
        position: `Position`, which it moves on.
        folder: `RunFolder`, or None for a process that doesn't write.
        pipeline: Of training, whose `waited_s` is logged.
        held_out: That of validation; the damaged images of both are counted.
        evaluate: A function that gives `{metric: value}` on the validation images.
        board: A `tensorboardX.SummaryWriter`, or None.
        saving: `Saving`.
    """

    def __init__(self, position, folder, pipeline, held_out, evaluate, board, saving):
        super().__init__()
        self.position, self.folder, self._evaluate = position, folder, evaluate
        self.pipeline, self.held_out = pipeline, held_out
        self.board, self.saving = board, saving

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began, self._step, self._waited = time.monotonic(), self.position.step, self.pipeline.waited_s

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.position.step = self._step + batch + 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        seconds = time.monotonic() - self._began
        steps = self.position.step - self._step
        row = {"epoch": self.position.step // self.position.steps_per_epoch, "step": self.position.step}
        row |= {name: float(value) for name, value in (logs or {}).items()}
        row |= {f"val_{name}": float(value) for name, value in self._evaluate().items()}
        row["learning_rate"] = rate(self.model)
        row["images_per_second"] = steps * self.position.batch_size / seconds
        row["waiting"] = (self.pipeline.waited_s - self._waited) / seconds
        row["damaged"] = len(self.pipeline.damaged) + len(self.held_out.damaged)
        is_best = goodness(row) > max((goodness(earlier) for earlier in self.position.history), default=(-math.inf,))
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


def goodness(row):
    """Return the key by which epochs are ranked: validation accuracy, then the lower validation loss."""
    return row.get("val_accuracy", 0.0), -row.get("val_loss", row["loss"])


def rate(model):
    """Return the learning rate of the next step."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))
