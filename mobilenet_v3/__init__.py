"""MobileNet V3 (Howard et al., 2019): NAS-designed inverted residuals with squeeze-and-excitation and hard-swish."""

from mobilenet_v3.architectures import VARIANTS
from mobilenet_v3.model import create_mobilenetv3
from mobilenet_v3.weights import WEIGHTS

__all__ = ["VARIANTS", "WEIGHTS", "create_mobilenetv3"]
