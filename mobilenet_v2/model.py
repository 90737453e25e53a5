"""The create function of this generation."""

from mobilenet_common.create import creator
from mobilenet_v2.architectures import VARIANTS
from mobilenet_v2.weights import WEIGHTS

create_mobilenetv2 = creator(
    "create_mobilenetv2",
    "mobilenet_v2",
    VARIANTS,
    WEIGHTS,
    "1.0",
    """Builds a MobileNet V2 (Sandler et al., 2018, arXiv:1801.04381).""",
)
