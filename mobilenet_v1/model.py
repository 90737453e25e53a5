"""The create function of this generation."""

from mobilenet_common.create import creator
from mobilenet_v1.architectures import VARIANTS
from mobilenet_v1.weights import WEIGHTS

create_mobilenetv1 = creator(
    "create_mobilenetv1",
    "mobilenet_v1",
    VARIANTS,
    WEIGHTS,
    "1.0",
    """Builds a MobileNet V1 (Howard et al., 2017, arXiv:1704.04861).""",
)
