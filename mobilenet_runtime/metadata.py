"""What travels inside an exported file: how images are made ready for it, and what its outputs mean."""

import dataclasses
import json
import math
from typing import Any

from mobilenet_common.choices import INTERPOLATIONS
from mobilenet_common.errors import UPDATE_HINT, ArgumentError, integer, number, one_of, plain_value, printable
from mobilenet_runtime.transform import Preprocessing
from mobilenet_runtime.version import VERSION

KEY = "mobilenet"  # under which formats that have keys keep it
FILE = "mobilenet.json"  # and those that have files
LAYOUTS = ("NHWC", "NCHW")
GIVES = ("probabilities", "logits", "features")
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What belongs to an exported model beside its graph.

    Attributes:
        name: Of the model.
        class_names: A name for each class, or None.
        size: Height and width of the images.
        channels: 1 for gray images, 3 for RGB.
        layout: `"NHWC"` or `"NCHW"`, the order of the input's axes in the file.
        crop: Fraction of the resized image's shorter side that the input takes.
        interpolation: How images are resized.
        mean, std: Of each channel, for pixels in 0..1; None where the model takes pixels in 0..255.
        gives: `"probabilities"`, `"logits"` or `"features"`.
        source: Name of the published weights, or None.
        license: Its identifier, or None.
        generator: What wrote the file.

    Raises:
        ValueError: A value is not allowed; the message names the field.
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
        own = {"size": size, "channels": channels, "crop": number("crop", self.crop, 0, 1, low_open=True)}
        one_of("layout", self.layout, LAYOUTS)
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        one_of("gives", self.gives, GIVES)
        if self.class_names is not None:
            names = _sequence("class_names", self.class_names)
            own["class_names"] = tuple(printable(_text("class_names", name)) for name in names)
        if (self.mean is None) != (self.std is None):
            raise ArgumentError(f"mean={self.mean!r} and std={self.std!r} are not allowed: give both, or neither.")
        if self.mean is not None:
            own["mean"] = tuple(_finite("mean", value) for value in _sequence("mean", self.mean, channels))
            own["std"] = tuple(_finite("std", value, above=0) for value in _sequence("std", self.std, channels))
        for field, value in own.items():
            object.__setattr__(self, field, value)

    def as_json(self) -> str:
        """Return the text that `from_json` reads back to equal metadata."""
        return json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Metadata":
        """Return the metadata in a text.

        Raises:
            ValueError: The text is damaged; the message names the field.
        """
        try:
            record = json.loads(text)
        except ValueError as error:
            raise ArgumentError(f"The metadata are no JSON ({error}).") from error
        if not isinstance(record, dict):
            raise ArgumentError(f"The metadata are a {type(record).__name__}, not a record of fields.")
        if integer("format", record.pop("format", None), 1) > _FORMAT:
            raise ArgumentError(f"The metadata are those of a newer mobilenet-zoo: {UPDATE_HINT}.")
        fields = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in record:
                raise ArgumentError(f"{name} is missing in the metadata.")
        for name in record:
            if name not in fields:
                raise ArgumentError(f"{name} is no field of the metadata. Allowed: {', '.join(fields)}.")
        return cls(**record)

    def transform(self) -> Preprocessing:
        """Return the `Preprocessing` of the model's images, channels last, as `Exported` takes them."""
        return Preprocessing(self.size, self.crop, self.interpolation, self.mean, self.std, self.channels)


def _text(field, value):
    if not isinstance(value, str) or not value:
        raise ArgumentError(f"{field}={value!r} is not allowed: it must be a text that is not empty.")
    return value


def _sequence(field, value, length=None):
    if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length) or not value:
        many = "some" if length is None else str(length)
        raise ArgumentError(f"{field}={value!r} is not allowed: it must be a list of {many} values.")
    return value


def _finite(field, given: Any, above=-math.inf):
    value: Any = plain_value(given)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value < math.inf:
        bound = "" if above == -math.inf else f" above {above}"
        raise ArgumentError(f"{field} holds {value!r}, which is not allowed: it must hold finite numbers{bound}.")
    return float(value)
