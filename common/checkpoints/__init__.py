"""Weights: finding and fetching published ones, reading files safely, mapping the names that others give tensors."""

from mobilenet_common.checkpoints.layouts import LAYOUTS
from mobilenet_common.checkpoints.loading import load_checkpoint, load_into
from mobilenet_common.checkpoints.published import is_named, open_weights
from mobilenet_common.checkpoints.state_dict import StateDict

__all__ = ["LAYOUTS", "StateDict", "is_named", "load_checkpoint", "load_into", "open_weights"]
