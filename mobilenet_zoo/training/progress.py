"""The progress display of a run: a bar with the remaining time, and one line per epoch."""

import sys
import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar(keras.callbacks.Callback):
    """Shows a progress bar on the terminal, and prints one line per epoch to standard output.

    Args:
        position: `Position` of the run.
        epochs: Number of epochs of the whole run.
        pipeline: Training `Pipeline`, whose `waited_s` is shown.
        console: Rich console that shows the bar; None for standard error.
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
            # With redirect_stdout, the bar would send standard output to its own console.
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
        self._epoch_start, self._first_step, self._waited_before = (
            time.monotonic(),
            self.position.step,
            self.pipeline.waited_s,
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._loss is None or self.position.is_sync_step():
            self._loss = float((logs or {}).get("loss", 0.0))
        seconds = time.monotonic() - self._epoch_start
        self._bar.update(
            self._task,
            completed=self.position.step,
            epoch=-(-self.position.step // self.position.steps_per_epoch),
            loss=self._loss,
            speed=(self.position.step - self._first_step) * self.position.batch_size / seconds,
            waiting=(self.pipeline.waited_s - self._waited_before) / seconds,
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = self.position.history[-1]
        parts = [f"epoch {row['epoch']} of {self.epochs}"]
        for name, label, format_spec in (
            ("loss", "loss", ".4f"),
            ("accuracy", "accuracy", ".1%"),
            ("val_loss", "validation: loss", ".4f"),
            ("val_accuracy", "accuracy", ".1%"),
        ):
            if name in row:
                parts.append(f"{label} {row[name]:{format_spec}}")
        parts += [f"{row['images_per_second']:.0f} images/s", f"{row['waiting']:.0%} waiting for data"]
        line = " · ".join(parts)
        if self.console.is_terminal and sys.stdout.isatty():  # Both are the terminal: print the line above the bar.
            self._bar.console.print(line, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
