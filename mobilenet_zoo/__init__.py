"""Tools for all MobileNet models: create them by name, load weights, prepare images, decode predictions, and export.

Importing this package registers the layers of all four generations with Keras, so that saved models can be loaded.
"""

from mobilenet_common.checkpoints import load_checkpoint
from mobilenet_common.errors import (
    ArgumentError,
    CheckpointError,
    DownloadError,
    ExportError,
    MobileNetError,
    MobileNetWarning,
    UnknownArgumentError,
)
from mobilenet_runtime import ImageError, Prediction, Preprocessing, decode_predictions
from mobilenet_runtime.version import VERSION
from mobilenet_zoo.classifiers import reset_classifier
from mobilenet_zoo.conversion import export_checkpoint
from mobilenet_zoo.exporting import ExportReport, ExportStep, export
from mobilenet_zoo.finetuning import discriminative_rates, freeze_batch_norm
from mobilenet_zoo.fusing import fuse
from mobilenet_zoo.model_preprocessing import preprocessing, set_preprocessing
from mobilenet_zoo.pretrained import class_names_of, from_pretrained, push_to_hub, save_pretrained
from mobilenet_zoo.profiling import Profile, ProfileRow, profile
from mobilenet_zoo.registry import create_model, list_models

__version__ = VERSION

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "DownloadError",
    "ExportError",
    "ExportReport",
    "ExportStep",
    "MobileNetError",
    "MobileNetWarning",
    "ImageError",
    "Prediction",
    "Preprocessing",
    "Profile",
    "ProfileRow",
    "UnknownArgumentError",
    "class_names_of",
    "create_model",
    "decode_predictions",
    "discriminative_rates",
    "export",
    "export_checkpoint",
    "freeze_batch_norm",
    "from_pretrained",
    "fuse",
    "list_models",
    "load_checkpoint",
    "preprocessing",
    "profile",
    "push_to_hub",
    "reset_classifier",
    "save_pretrained",
    "set_preprocessing",
]
