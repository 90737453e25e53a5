"""The create function of this generation."""

from mobilenet_common.create import creator
from mobilenet_v4.architectures import VARIANTS
from mobilenet_v4.weights import WEIGHTS

create_mobilenetv4 = creator(
    "create_mobilenetv4",
    "mobilenet_v4",
    VARIANTS,
    WEIGHTS,
    "conv_medium",
    """Builds a MobileNet V4 (Qin et al., 2024, arXiv:2404.10518), or one of the compact family.""",
)
