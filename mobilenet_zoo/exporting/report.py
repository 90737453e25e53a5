"""What an export says about the file that it wrote."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """A file, what it costs, and how near it is to the model; `print` it for a summary.

    What verification finds is None where it was not asked for.

    Attributes:
        path: The file or folder.
        format: Its name, such as `"litert"`.
        input_shape: What goes in, with None where any number does.
        layout: `"NHWC"` or `"NCHW"`.
        quantization: What was asked for.
        float_blocks: The layers that were kept in float by name.
        bytes: Size of the file, or of all files.
        float_bytes: Size before it was quantized.
        runtime: Who opened the file, with the version.
        deviation: Largest difference from the model's output, as a fraction of the largest.
        agreement: Fraction of the images for which file and model have the same first class.
        images: How many were compared.
        accuracy, float_accuracy: Fraction of labeled images that file and model get right.
        latency_ms: Median time of a call, in milliseconds.
        operations: `{operation: how many}` as the format names them.
        placement: `{who computes: how many operations}`.
        notes: What else a user should know.
        seconds: What writing and verifying took.
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
        """How many operations the graph has."""
        return None if self.operations is None else sum(self.operations.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain dicts, lists, strings and numbers."""
        return dataclasses.asdict(self) | {"operation_count": self.operation_count}

    def __str__(self):
        shape = ", ".join("any" if n is None else str(n) for n in self.input_shape)
        size = f"{self.bytes / 1e6:.2f} MB"
        if self.quantization:
            size += f", {self.bytes / self.float_bytes:.2f} of float32's {self.float_bytes / 1e6:.2f} MB"
        lines = [
            ("file", f"{self.path} ({self.format}{', ' + self.quantization if self.quantization else ''})"),
            ("takes", f"({shape}), {self.layout}"),
            ("size", size),
        ]
        if self.runtime:
            lines += [
                ("opened by", self.runtime),
                ("deviation", f"{self.deviation:.1e} of the largest output, {self.images} images"),
                *([("same class", f"{self.agreement:.1%}")] if self.agreement is not None else []),
                *([("accuracy", self._accuracies())] if self.accuracy is not None else []),
                ("latency", f"{self.latency_ms:.2f} ms, median of a short run"),
                ("operations", f"{self.operation_count}: {_counts(self.operations)}"),
                ("computed by", _counts(self.placement)),
            ]
        if self.float_blocks:
            lines.append(("in float", ", ".join(self.float_blocks)))
        lines += [("note", note) for note in self.notes]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name.ljust(width)}  {text}" for name, text in lines)

    def _accuracies(self):
        return f"{self.accuracy:.1%}, of the model in float32 {self.float_accuracy:.1%}"


def _counts(counted):
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered)
