"""Architecture of MobileNet V1 (arXiv:1704.04861, table 1) and variants: the published widths, and timm's."""

import dataclasses

from mobilenet_common.architecture import Architecture, Conv, Head, Separable

MOBILENET_V1 = Architecture(
    name="mobilenetv1_{width}",
    stem=Conv(32, stride=2),
    stages=(
        # filters, stride
        (Separable(64),),
        (Separable(128, 2), Separable(128)),
        (Separable(256, 2), Separable(256)),
        (Separable(512, 2), *[Separable(512)] * 5),
        (Separable(1024, 2), Separable(1024)),
    ),
    rounding="truncate",
    activation="relu6",
    dropout_rate=0.001,
)

VARIANTS = {
    "1.0": MOBILENET_V1,
    "0.75": dataclasses.replace(MOBILENET_V1, width=0.75),
    "0.5": dataclasses.replace(MOBILENET_V1, width=0.5),
    "0.25": dataclasses.replace(MOBILENET_V1, width=0.25),
    "1.25": dataclasses.replace(MOBILENET_V1, width=1.25),
    # timm's "h" variant has a pointwise convolution between the stages and the pool.
    "1.0h": dataclasses.replace(MOBILENET_V1, name="mobilenetv1_{width}h", head=Head(conv=Conv(1024, kernel=1))),
}
