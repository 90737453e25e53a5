"""Jobs for the process that writes files, and their results. Both are passed between processes as JSON."""

import dataclasses
from typing import Any, Self


@dataclasses.dataclass(frozen=True)
class _Record:
    """Base of the messages between the two processes."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as a dict that can be written as JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Create an instance from the dict that `as_json` returned. JSON's lists become tuples again."""
        return cls(**{name: _tuples(value) for name, value in record.items()})


@dataclasses.dataclass(frozen=True)
class Job(_Record):
    """Job that writes one file or, if `rank` is set, ranks layers without writing a file.

    Attributes:
        path: Path of the file.
        format: Name of the format, a key of `FORMATS`.
        batch_size: Number of images per batch; None for any number.
        image_size: `(height, width)` of the images.
        scaling: `(mean, std)` of the normalization inside the file, for pixels in 0..1, or None.
        softmax: Whether the file returns probabilities (True) or logits (False); None for the model's own output.
        quantization: `"float16"`, `"dynamic"`, `"int8"` or None.
        calibration: Path of an `.npy` file with calibration images, channels last, in the value range that the exported
            file takes. None unless `quantization` is `"int8"`.
        float_blocks: Names of layers to leave in float32.
        reduce_range: Whether weights use only 7 bits.
        blocks: Whether the file also returns the output of every layer.
        metadata: `Metadata` as JSON text, or None. The writing process sets its layout.
        plain: Path of an existing float32 file to quantize; None to write a new one.
        rank: Names of layers to rank by the accuracy gained if the layer stays in float32. If it is not empty, no file
            is written.
    """

    path: str
    format: str
    batch_size: int | None
    image_size: tuple[int, int]
    scaling: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    softmax: bool | None = None
    quantization: str | None = None
    calibration: str | None = None
    float_blocks: tuple[str, ...] = ()
    reduce_range: bool = False
    blocks: bool = False
    metadata: str | None = None
    plain: str | None = None
    rank: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Result(_Record):
    """Result of a job.

    Attributes:
        layout: Order of the image axes, `"NHWC"` or `"NCHW"`.
        float_bytes: Size of the float32 file in bytes, before quantization.
        seconds: Duration of the quantization, in seconds.
        improving_seconds: Duration of cross-layer equalization and bias correction, in seconds.
        ranked: The names of `Job.rank`, sorted by the accuracy gained in float32, largest first.
    """

    layout: str = "NHWC"
    float_bytes: int = 0
    seconds: float = 0.0
    improving_seconds: float = 0.0
    ranked: tuple[str, ...] = ()


def _tuples(value) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
