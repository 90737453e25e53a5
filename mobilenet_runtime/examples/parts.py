"""What a source of examples gives before its labels are numbered."""

import dataclasses
from collections.abc import Callable, Sequence

TRAIN, VALIDATION, TEST = "train", "validation", "test"
WHOLE = ""  # the name of the only part of what is not split

_NAMES = {"training": TRAIN, "val": VALIDATION, "valid": VALIDATION, "dev": VALIDATION, "testing": TEST}


@dataclasses.dataclass
class Part:
    """Some of a source's images.

    Attributes:
        images, names: As in `Examples`.
        labels: Names or numbers of classes, as the source has them.
        place_of: Gives where example `i` is written, for messages.
    """

    images: Sequence
    labels: Sequence
    place_of: Callable[[int], str]
    names: Sequence[str] | None = None


def part_name(name: str) -> str:
    """Return the name that a part goes by here, whatever its source calls it."""
    return _NAMES.get(str(name).lower(), str(name).lower())
