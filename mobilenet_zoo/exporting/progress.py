"""What an export reports while it runs."""

import dataclasses
import time

from mobilenet_common.notices import warn


@dataclasses.dataclass(frozen=True)
class ExportStep:
    """A step of an export that begins.

    Attributes:
        path: The file that the step is for.
        text: What is done, such as `"calibrate and quantize"`.
        number: 1 for the first step of the export.
        total: The number of steps as known now; a search for float32 layers adds some.
        seconds: Time since the export began.
        remaining: Estimated seconds to the end, or None where nothing has been measured that tells.
        notice: A sentence that the user should see, such as the announcement of a search, or None.
    """

    path: str
    text: str
    number: int
    total: int
    seconds: float
    remaining: float | None = None
    notice: str | None = None

    def __str__(self):
        left = "" if self.remaining is None else f", about {self.remaining:.0f} s left"
        return f"[{self.number}/{self.total}] {self.path}: {self.text} ({self.seconds:.0f} s{left})"


class Progress:
    """Count the steps of an export and report each to `callback`.

    Args:
        callback: Takes an `ExportStep`; None reports nothing but notices, as warnings.
        total: The number of steps.
    """

    def __init__(self, callback, total):
        self.callback = callback
        self.total = total
        self.number = 0
        self.start = time.monotonic()
        self.end = None

    def step(self, path, text, notice=None):
        """Report a step that begins."""
        self.number += 1
        now = time.monotonic()
        if notice is not None and self.callback is None:
            warn(f"{path}: {notice}")
        if self.callback is not None:
            remaining = None if self.end is None else max(0.0, self.end - now)
            total = max(self.total, self.number)
            self.callback(ExportStep(str(path), text, self.number, total, now - self.start, remaining, notice))

    def extend(self, steps: int, seconds: float) -> None:
        """Add `steps` that were not known before and that take about `seconds`."""
        self.total += steps
        self.end = time.monotonic() + seconds

    def drop(self, steps: int) -> None:
        """Take back `steps` that are not needed any more."""
        self.total -= steps
        self.end = None


def steps_of(format, quantization, verify):
    """Return what writing and verifying one file does, in order."""
    steps = ["fold batch norm and prepare"]
    if quantization == "int8":
        steps.append("equalize channels and correct biases")
    steps.append(f"write {format.title} in float32")
    if quantization is not None:
        steps.append("calibrate and quantize" if quantization == "int8" else "quantize")
    return steps if verify is False else [*steps, "compare with the model"]
