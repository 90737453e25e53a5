"""Weights from files: reading them safely, and mapping the names that other libraries give them."""

from mobilenet_common.checkpoints.checkpoint import Checkpoint
from mobilenet_common.checkpoints.layouts import LAYOUTS
from mobilenet_common.checkpoints.loading import load_checkpoint, load_into

__all__ = ["LAYOUTS", "Checkpoint", "load_checkpoint", "load_into"]
