"""What runs where a model is used and Keras needn't be: pictures made ready, exported files run, answers named.

Needs NumPy and Pillow, and for an exported file the library that runs its format.
"""

from mobilenet_runtime.labels import Prediction, decode_predictions
from mobilenet_runtime.pictures import PictureError
from mobilenet_runtime.runtimes import is_exported, load
from mobilenet_runtime.runtimes.base import Exported, RuntimeFailure, RuntimeMissing
from mobilenet_runtime.transform import Preprocessing

__all__ = [
    "Exported",
    "PictureError",
    "Prediction",
    "Preprocessing",
    "RuntimeFailure",
    "RuntimeMissing",
    "decode_predictions",
    "is_exported",
    "load",
]
