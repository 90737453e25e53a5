"""MobileNet V2 (Sandler et al., 2018): inverted residuals with linear bottlenecks."""

from mobilenet_v2.architectures import VARIANTS
from mobilenet_v2.model import create_mobilenetv2
from mobilenet_v2.weights import WEIGHTS

__all__ = ["VARIANTS", "WEIGHTS", "create_mobilenetv2"]
