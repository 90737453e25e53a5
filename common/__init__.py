"""What all four MobileNet generations share: architectures as data, layers, blocks, checkpoints and the one builder."""

from mobilenet_common.architecture import Architecture, Head
from mobilenet_common.errors import CheckpointError
from mobilenet_common.widths import make_divisible

__all__ = ["Architecture", "CheckpointError", "Head", "make_divisible"]
