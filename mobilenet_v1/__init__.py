"""MobileNet V1 (Howard et al., 2017): depthwise separable convolutions, in a straight line."""

from mobilenet_v1.architectures import VARIANTS
from mobilenet_v1.model import create_mobilenetv1

__all__ = ["VARIANTS", "create_mobilenetv1"]
