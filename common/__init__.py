"""What all four MobileNet generations share: architectures as data, layers, blocks, checkpoints and the one builder."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobilenet_common.architecture import Architecture, Head
    from mobilenet_common.errors import CheckpointError
    from mobilenet_common.widths import make_divisible

# Imported when first asked for: the errors and the reading of images must be had without Keras.
_HOMES = {
    "Architecture": "architecture",
    "CheckpointError": "errors",
    "Head": "architecture",
    "make_divisible": "widths",
}

__all__ = ["Architecture", "CheckpointError", "Head", "make_divisible"]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
