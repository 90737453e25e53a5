"""Progress reports of an export."""

import dataclasses
import time

from mobilenet_common.notices import warn


@dataclasses.dataclass(frozen=True)
class ExportStep:
    """Step of an export, reported when it starts.

    Attributes:
        path: Path of the exported file that the step belongs to.
        text: Description of the step, such as `"calibrate and quantize"`.
        number: Number of the step, starting at 1.
        total: Number of steps that are currently planned; a search for float32 layers adds steps.
        seconds: Seconds since the start of the export.
        remaining: Estimated number of remaining seconds, or None if there is no estimate.
        notice: Message for the user, such as the announcement of a search, or None.
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
    """Step counter that reports each step of an export to a callback.

    Args:
        callback: Function that takes an `ExportStep`. With None, only notices are reported, as warnings.
        total: Number of planned steps.
    """

    def __init__(self, callback, total):
        self.callback = callback
        self.total = total
        self.number = 0
        self.start = time.monotonic()
        self.end = None

    def step(self, path, text, notice=None):
        """Report the start of a step."""
        self.number += 1
        now = time.monotonic()
        if notice is not None and self.callback is None:
            warn(f"{path}: {notice}")
        if self.callback is not None:
            remaining = None if self.end is None else max(0.0, self.end - now)
            total = max(self.total, self.number)
            self.callback(ExportStep(str(path), text, self.number, total, now - self.start, remaining, notice))

    def extend(self, steps: int, seconds: float) -> None:
        """Add a number of steps to the total; together they take about `seconds`."""
        self.total += steps
        self.end = time.monotonic() + seconds

    def drop(self, steps: int) -> None:
        """Subtract steps that are no longer needed from the total."""
        self.total -= steps
        self.end = None


def steps_of(format, quantization, verify):
    """Return the descriptions of the steps that write and verify one file, in order."""
    steps = ["fold batch norm and prepare"]
    if quantization == "int8":
        steps.append("equalize channels and correct biases")
    steps.append(f"write {format.title} in float32")
    if quantization is not None:
        steps.append("calibrate and quantize" if quantization == "int8" else "quantize")
    return steps if verify is False else [*steps, "compare with the model"]
