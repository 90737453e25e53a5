"""How a run goes, for a person who watches: a bar with the time that remains, and a line an epoch."""

import sys
import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar(keras.callbacks.Callback):
    """A bar on the terminal, and a line for each epoch on standard output.

    Args:
        position: The run's `Position`.
        epochs: Of the whole run.
        pipeline: Whose `waited_s` is shown.
        console: Where the bar is shown; None for standard error.
    """

    def __init__(self, position, epochs, pipeline, console=None):
        super().__init__()
        self.position, self.epochs, self.pipeline = position, epochs, pipeline
        self.console = console or Console(stderr=True)
        self._bar: Any = None
        self._loss = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._bar is None:
            columns = (
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]:.4f} · {task.fields[speed]:.0f} images/s · waiting for data "),
                TextColumn("{task.fields[waiting]:.0%} · run"),
                TimeRemainingColumn(),
            )
            # Without redirect_stdout=False the bar would take what is printed to standard output to its own console.
            options: dict[str, Any] = {
                "transient": True,
                "redirect_stdout": False,
                "disable": not self.console.is_terminal,
            }
            self._bar = Progress(*columns, console=self.console, **options)
            fields = {"epoch": self.position.epoch + 1, "loss": 0.0, "speed": 0.0, "waiting": 0.0}
            total = self.epochs * self.position.steps_per_epoch
            self._task = self._bar.add_task("", total=total, completed=self.position.step, **fields)
            self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began, self._first, self._waited = time.monotonic(), self.position.step, self.pipeline.waited_s

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._loss is None or self.position.is_looked_at():
            self._loss = float((logs or {}).get("loss", 0.0))
        seconds = time.monotonic() - self._began
        self._bar.update(
            self._task,
            completed=self.position.step,
            epoch=-(-self.position.step // self.position.steps_per_epoch),
            loss=self._loss,
            speed=(self.position.step - self._first) * self.position.batch_size / seconds,
            waiting=(self.pipeline.waited_s - self._waited) / seconds,
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = self.position.history[-1]
        parts = [f"epoch {row['epoch']} of {self.epochs}"]
        for name, words, form in (
            ("loss", "loss", ".4f"),
            ("accuracy", "accuracy", ".1%"),
            ("val_loss", "validation: loss", ".4f"),
            ("val_accuracy", "accuracy", ".1%"),
        ):
            if name in row:
                parts.append(f"{words} {row[name]:{form}}")
        parts += [f"{row['images_per_second']:.0f} images/s", f"{row['waiting']:.0%} waiting for data"]
        line = " · ".join(parts)
        if self.console.is_terminal and sys.stdout.isatty():  # both are the same, where the bar has to make room
            self._bar.console.print(line, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
