"""Metadata stored in exported files: how to preprocess images and how to interpret the outputs."""

import dataclasses
import json
import math
from typing import Any

from mobilenet_common.choices import INTERPOLATIONS
from mobilenet_common.errors import UPDATE_HINT, ArgumentError, integer, number, one_of, plain_value, printable
from mobilenet_runtime.transform import Preprocessing
from mobilenet_runtime.version import VERSION

KEY = "mobilenet"  # key of the metadata in formats with key-value properties
FILE = "mobilenet.json"  # file name of the metadata in formats that embed files
LAYOUTS = ("NHWC", "NCHW")
GIVES = ("probabilities", "logits", "features")
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Metadata of an exported model: everything that inference needs besides the graph.

    Attributes:
        name: Name of the model.
        class_names: A name for each class, or None.
        size: Height and width of the input images in pixels.
        channels: Number of input channels: 1 for grayscale images, 3 for RGB.
        layout: Order of the input's axes in the file, `"NHWC"` or `"NCHW"`.
        crop: Fraction of the resized image's shorter side that the center crop keeps, in (0, 1].
        interpolation: Name of the interpolation for resizing, such as `"bicubic"`.
        mean, std: Mean and standard deviation of each channel, for pixels in 0..1. None if the model takes pixels in
            0..255.
        gives: Kind of the outputs: `"probabilities"`, `"logits"` or `"features"`.
        source: Name of the published weights, or None.
        license: License identifier, or None.
        generator: Name and version of the program that wrote the file.

    Raises:
        ValueError: If a value is not allowed. The message names the field.
    """

    name: str
    class_names: tuple[str, ...] | None
    size: tuple[int, int]
    channels: int
    layout: str
    crop: float
    interpolation: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    gives: str
    source: str | None = None
    license: str | None = None
    generator: str = f"mobilenet-zoo {VERSION}"

    def __post_init__(self):
        for field in ("name", "generator"):
            _text(field, getattr(self, field))
        for field in ("source", "license"):
            if getattr(self, field) is not None:
                _text(field, getattr(self, field))
        size = tuple(integer("size", n, 1) for n in _sequence("size", self.size, 2))
        channels = integer("channels", self.channels, 1)
        checked = {"size": size, "channels": channels, "crop": number("crop", self.crop, 0, 1, low_open=True)}
        one_of("layout", self.layout, LAYOUTS)
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        one_of("gives", self.gives, GIVES)
        if self.class_names is not None:
            names = _sequence("class_names", self.class_names)
            checked["class_names"] = tuple(printable(_text("class_names", name)) for name in names)
        if (self.mean is None) != (self.std is None):
            raise ArgumentError(f"mean={self.mean!r} and std={self.std!r} are not allowed: pass both or neither.")
        if self.mean is not None:
            checked["mean"] = tuple(_finite("mean", value) for value in _sequence("mean", self.mean, channels))
            checked["std"] = tuple(_finite("std", value, above=0) for value in _sequence("std", self.std, channels))
        for field, value in checked.items():
            object.__setattr__(self, field, value)

    def as_json(self) -> str:
        """Return the metadata as JSON text, which `from_json` reads back."""
        return json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Metadata":
        """Return the metadata that `as_json` wrote.

        Args:
            text: JSON text.

        Raises:
            ValueError: If the text is not valid JSON, or if a field is missing, unknown or wrong. The message names
                the field.
        """
        try:
            record = json.loads(text)
        except ValueError as error:
            raise ArgumentError(f"The metadata is not valid JSON ({error}).") from error
        if not isinstance(record, dict):
            raise ArgumentError(f"The metadata must be a JSON object with fields, got a {type(record).__name__}.")
        if integer("format", record.pop("format", None), 1) > _FORMAT:
            raise ArgumentError(f"The metadata was written by a newer version of mobilenet-zoo: {UPDATE_HINT}.")
        fields = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in record:
                raise ArgumentError(f"{name} is missing from the metadata.")
        for name in record:
            if name not in fields:
                raise ArgumentError(f"{name} is not a metadata field. Allowed: {', '.join(fields)}.")
        return cls(**record)

    def transform(self) -> Preprocessing:
        """Return the `Preprocessing` for the model's images, with channels last as `Exported` expects."""
        return Preprocessing(self.size, self.crop, self.interpolation, self.mean, self.std, self.channels)


def _text(field, value):
    if not isinstance(value, str) or not value:
        raise ArgumentError(f"{field}={value!r} is not allowed: it must be a non-empty string.")
    return value


def _sequence(field, value, length=None):
    if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length) or not value:
        expected = "non-empty list" if length is None else f"list of {length} values"
        raise ArgumentError(f"{field}={value!r} is not allowed: it must be a {expected}.")
    return value


def _finite(field, raw: Any, above=-math.inf):
    value: Any = plain_value(raw)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value < math.inf:
        bound = "" if above == -math.inf else f" above {above}"
        raise ArgumentError(f"{field} contains {value!r}, but all its values must be finite numbers{bound}.")
    return float(value)
