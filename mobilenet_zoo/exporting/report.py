"""The report of an export."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """Report on an exported file: its size, latency and deviation from the model. `print` it for a summary.

    With `verify=False`, the attributes that verification sets are None: `runtime` to `placement` in the list below.

    Attributes:
        path: Path of the file or folder.
        format: Name of the format, such as `"litert"`.
        input_shape: Shape of the input; an axis of any size is None.
        layout: Order of the input axes, `"NHWC"` or `"NCHW"`.
        quantization: Requested quantization, or None.
        float_blocks: Names of the layers that were left in float32.
        bytes: Size in bytes, of all files together.
        float_bytes: Size in bytes before quantization.
        runtime: Runtime that opened the file, with its version.
        deviation: Largest difference from the model's output, as a fraction of the largest output.
        agreement: Fraction of the images for which the file and the model predict the same class; None for features.
        images: Number of images that were compared.
        accuracy, float_accuracy: Accuracy of the file and of the float32 model; None without labels.
        latency_ms: Median time of a call, in milliseconds.
        operations: Number of operations of each type, as a dict with the format's names for them.
        placement: Number of operations that each component of the runtime computes, as a dict.
        notes: Additional notes for the user.
        seconds: Time that writing and verifying took, in seconds.
    """

    path: str
    format: str
    input_shape: tuple
    layout: str
    quantization: str | None
    float_blocks: tuple[str, ...]
    bytes: int
    float_bytes: int
    runtime: str | None = None
    deviation: float | None = None
    agreement: float | None = None
    images: int | None = None
    accuracy: float | None = None
    float_accuracy: float | None = None
    latency_ms: float | None = None
    operations: dict[str, int] | None = None
    placement: dict[str, int] | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def operation_count(self) -> int | None:
        """Number of operations in the graph, or None without verification."""
        return None if self.operations is None else sum(self.operations.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain dicts, lists, strings and numbers."""
        return dataclasses.asdict(self) | {"operation_count": self.operation_count}

    def __str__(self):
        shape = ", ".join("any" if n is None else str(n) for n in self.input_shape)
        size = f"{self.bytes / 1e6:.2f} MB"
        if self.quantization:
            fraction = self.bytes / self.float_bytes
            size += f", {fraction:.0%} of the float32 size ({self.float_bytes / 1e6:.2f} MB)"
        lines = [
            ("file", f"{self.path} ({self.format}{', ' + self.quantization if self.quantization else ''})"),
            ("input", f"({shape}), {self.layout}"),
            ("size", size),
        ]
        if self.runtime:
            lines += [
                ("runtime", self.runtime),
                ("deviation", f"{self.deviation:.1e} of the largest output, over {self.images} images"),
                *([("agreement", f"{self.agreement:.1%} of the images")] if self.agreement is not None else []),
                *([("accuracy", self._accuracies())] if self.accuracy is not None else []),
                ("latency", f"{self.latency_ms:.2f} ms, median of a short run"),
                ("operations", f"{self.operation_count}: {_counts(self.operations)}"),
                ("placement", _counts(self.placement)),
            ]
        if self.float_blocks:
            lines.append(("in float32", ", ".join(self.float_blocks)))
        lines += [("note", note) for note in self.notes]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name.ljust(width)}  {text}" for name, text in lines)

    def _accuracies(self):
        return f"{self.accuracy:.1%}, float32 model {self.float_accuracy:.1%}"


def _counts(counted):
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered)
