"""MobileNet V1 (Howard et al., 2017): depthwise separable convolutions, without shortcuts."""

from mobilenet_v1.architectures import VARIANTS
from mobilenet_v1.model import create_mobilenetv1
from mobilenet_v1.weights import WEIGHTS

__all__ = ["VARIANTS", "WEIGHTS", "create_mobilenetv1"]
