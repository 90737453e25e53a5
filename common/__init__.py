"""Code that all four MobileNet generations share: architectures, layers, blocks, checkpoints and the model builder."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobilenet_common.architecture import Architecture, Head
    from mobilenet_common.errors import CheckpointError
    from mobilenet_common.widths import make_divisible

# The modules are imported lazily, so that errors and image reading work without Keras.
_MODULES = {
    "Architecture": "architecture",
    "CheckpointError": "errors",
    "Head": "architecture",
    "make_divisible": "widths",
}

__all__ = ["Architecture", "CheckpointError", "Head", "make_divisible"]


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
