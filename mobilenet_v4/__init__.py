"""MobileNet V4 (Qin et al., 2024), with universal inverted bottlenecks and mobile attention, and the compact family."""

from mobilenet_v4.architectures import VARIANTS
from mobilenet_v4.compact import compact_architecture
from mobilenet_v4.model import create_mobilenetv4
from mobilenet_v4.weights import WEIGHTS

__all__ = ["VARIANTS", "WEIGHTS", "compact_architecture", "create_mobilenetv4"]
