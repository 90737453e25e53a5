"""What runs where a model is used and Keras needn't be: pictures made ready, answers named.

Needs NumPy and Pillow.
"""

from mobilenet_runtime.labels import Prediction, decode_predictions
from mobilenet_runtime.pictures import PictureError
from mobilenet_runtime.transform import Preprocessing

__all__ = ["PictureError", "Prediction", "Preprocessing", "decode_predictions"]
