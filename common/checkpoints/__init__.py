"""Checkpoints: downloads of published weights, reading and writing of files, and other libraries' tensor names."""

from mobilenet_common.checkpoints.exporting import TORCH_LAYOUTS, state_dict
from mobilenet_common.checkpoints.files import write
from mobilenet_common.checkpoints.layouts import LAYOUTS
from mobilenet_common.checkpoints.loading import load_checkpoint, load_into
from mobilenet_common.checkpoints.named_tensors import StateDict
from mobilenet_common.checkpoints.published import check_name, is_named, open_weights

__all__ = [
    "LAYOUTS",
    "TORCH_LAYOUTS",
    "StateDict",
    "check_name",
    "is_named",
    "load_checkpoint",
    "load_into",
    "open_weights",
    "state_dict",
    "write",
]
