"""The parts (splits) of a data source, before labels are converted to class numbers."""

import dataclasses
from collections.abc import Callable, Sequence

TRAIN, VALIDATION, TEST = "train", "validation", "test"
WHOLE = ""  # name of the only part of a data source without splits

_NAMES = {"training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "dev": VALIDATION, "testing": TEST}


@dataclasses.dataclass
class Part:
    """A part of a data source, such as its training split.

    Attributes:
        images: Sequence of images, as in `Examples`.
        labels: Sequence of class names or numbers, as in the source.
        place_of: Function that returns where example `i` is stored, for messages.
        names: Names of images without a path, as in `Examples`, or None.
    """

    images: Sequence
    labels: Sequence
    place_of: Callable[[int], str]
    names: Sequence[str] | None = None


def part_name(name: str) -> str:
    """Return the standard name of a part, such as `"validation"` for `"val"`."""
    return _NAMES.get(str(name).lower(), str(name).lower())
