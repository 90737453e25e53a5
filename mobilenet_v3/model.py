"""The create function of this generation."""

from mobilenet_common.create import creator
from mobilenet_v3.architectures import VARIANTS
from mobilenet_v3.weights import WEIGHTS

create_mobilenetv3 = creator(
    "create_mobilenetv3",
    "mobilenet_v3",
    VARIANTS,
    WEIGHTS,
    "large",
    """Builds a MobileNet V3 (Howard et al., 2019, arXiv:1905.02244).

    `keras.applications.MobileNetV3Large` and `MobileNetV3Small` normalize inside by default; here as in all other
    generations `include_preprocessing` is False by default: pass True for the same.
    """,
)
