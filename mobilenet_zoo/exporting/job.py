"""The order for the process that writes files, and its result; both travel as JSON."""

import dataclasses
from typing import Any, Self


@dataclasses.dataclass(frozen=True)
class _Record:
    """A message between the two processes."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Return what `as_json` gave; lists become tuples again."""
        return cls(**{name: _tuples(value) for name, value in record.items()})


@dataclasses.dataclass(frozen=True)
class Job(_Record):
    """One file to write, or, with `rank`, layers to rank without writing one.

    Attributes:
        path: Of the file.
        format: A name of `FORMATS`.
        batch_size: Images at once; None for any number.
        image_size: `(height, width)`.
        scaling: `(mean, std)` to apply inside to pixels in 0..1, or None.
        softmax: Whether to end in probabilities (True) or logits (False); None for what the model gives.
        quantization: `"float16"`, `"dynamic"`, `"int8"` or None.
        calibration: The `.npy` file of images as the new file takes them; None unless `"int8"`.
        float_blocks: Names of layers to leave in float32.
        reduce_range: Whether weights get 7 bits.
        blocks: Whether the output of every block is an output of the file.
        metadata: JSON text of a `Metadata`, whose layout the process sets, or None.
        plain: The float32 file to quantize; None to write one.
        rank: Names of layers to rank by what float32 gains for them, in place of writing.
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
    """What came out of a job.

    Attributes:
        layout: `"NHWC"` or `"NCHW"`, the order of the images' axes.
        float_bytes: Size of the file before it was quantized.
        seconds: That quantizing took.
        improving_seconds: That the cross-layer equalization and the bias correction took.
        ranked: The names of `Job.rank`, those that gain most from float32 first.
    """

    layout: str = "NHWC"
    float_bytes: int = 0
    seconds: float = 0.0
    improving_seconds: float = 0.0
    ranked: tuple[str, ...] = ()


def _tuples(value) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
