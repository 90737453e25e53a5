"""Everything around the models: find one by name, load weights into it, give it another classifier, measure it.

Importing this package registers the layers of all four generations, so that saved models load.
"""

from mobilenet_common.checkpoints import load_checkpoint
from mobilenet_common.errors import CheckpointError
from mobilenet_zoo.classifier import reset_classifier
from mobilenet_zoo.fusing import fuse
from mobilenet_zoo.profiling import Profile, ProfileRow, profile
from mobilenet_zoo.registry import create_model, list_models

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Profile",
    "ProfileRow",
    "create_model",
    "fuse",
    "list_models",
    "load_checkpoint",
    "profile",
    "reset_classifier",
]
