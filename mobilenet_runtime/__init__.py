"""Run exported models without Keras: image preprocessing, exported files in their runtimes, decoded predictions.

Requires NumPy and Pillow. An exported file also requires the library that runs its format.
"""

from mobilenet_runtime.class_names import Prediction, decode_predictions
from mobilenet_runtime.embedding import embed
from mobilenet_runtime.images import ImageError
from mobilenet_runtime.metadata import Metadata
from mobilenet_runtime.runtimes import is_exported, load
from mobilenet_runtime.runtimes.base import Exported, RuntimeFailure, RuntimeMissing
from mobilenet_runtime.transform import Preprocessing
from mobilenet_runtime.version import VERSION

__version__ = VERSION

__all__ = [
    "Exported",
    "Metadata",
    "ImageError",
    "Prediction",
    "Preprocessing",
    "RuntimeFailure",
    "RuntimeMissing",
    "decode_predictions",
    "embed",
    "is_exported",
    "load",
]
