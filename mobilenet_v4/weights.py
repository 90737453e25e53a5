"""Published weights of MobileNet V4."""

import functools

from mobilenet_common import catalog
from mobilenet_common.catalog import HALF, IMAGENET_12K, At

_timm = functools.partial(catalog.timm, paper="Qin et al., MobileNetV4, 2024, arXiv:2404.10518")

_TIMM = (
    _timm(
        "mobilenetv4_conv_aa_large.e230_r384_in12k", "conv_aa_large", At(384, 0.95), At(448, 1.0), labels=IMAGENET_12K
    ),
    _timm(
        "mobilenetv4_conv_aa_large.e230_r384_in12k_ft_in1k",
        "conv_aa_large",
        At(384, 0.95, 84.314, 97.102),
        At(480, 1.0, 84.772, 97.344),
    ),
    _timm(
        "mobilenetv4_conv_aa_large.e230_r448_in12k_ft_in1k",
        "conv_aa_large",
        At(448, 0.95, 84.668, 97.108),
        At(544, 1.0, 84.99, 97.294),
    ),
    _timm(
        "mobilenetv4_conv_aa_large.e600_r384_in1k",
        "conv_aa_large",
        At(384, 0.95, 83.264, 96.39),
        At(480, 1.0, 83.826, 96.72),
    ),
    _timm(
        "mobilenetv4_conv_blur_medium.e500_r224_in1k",
        "conv_blur_medium",
        At(224, 0.95, 79.446, 94.92),
        At(256, 1.0, 80.152, 95.298),
    ),
    _timm(
        "mobilenetv4_conv_large.e500_r256_in1k",
        "conv_large",
        At(256, 0.95, 81.864, 95.696),
        At(320, 1.0, 82.672, 96.31),
    ),
    _timm(
        "mobilenetv4_conv_large.e600_r384_in1k",
        "conv_large",
        At(384, 0.95, 82.974, 96.244),
        At(448, 1.0, 83.418, 96.612),
    ),
    _timm("mobilenetv4_conv_medium.e180_ad_r384_in12k", "conv_medium", At(384, 1.0), labels=IMAGENET_12K),
    _timm("mobilenetv4_conv_medium.e180_r384_in12k", "conv_medium", At(384, 1.0), labels=IMAGENET_12K),
    _timm("mobilenetv4_conv_medium.e250_r384_in12k", "conv_medium", At(384, 1.0), labels=IMAGENET_12K),
    _timm("mobilenetv4_conv_medium.e250_r384_in12k_ft_in1k", "conv_medium", At(384, 0.95, 82.776, 96.448)),
    _timm(
        "mobilenetv4_conv_medium.e500_r224_in1k",
        "conv_medium",
        At(224, 0.95, 79.092, 94.788),
        At(256, 1.0, 79.836, 95.192),
    ),
    _timm(
        "mobilenetv4_conv_medium.e500_r256_in1k",
        "conv_medium",
        At(256, 0.95, 79.916, 95.188),
        At(320, 1.0, 80.89, 95.75),
    ),
    _timm(
        "mobilenetv4_conv_small.e1200_r224_in1k",
        "conv_small",
        At(224, 0.875, 73.45, 91.34),
        At(256, 0.95, 74.282, 92.122),
    ),
    _timm(
        "mobilenetv4_conv_small.e2400_r224_in1k",
        "conv_small",
        At(224, 0.875, 73.756, 91.43),
        At(256, 0.95, 74.644, 92.022),
    ),
    _timm(
        "mobilenetv4_conv_small.e3600_r256_in1k",
        "conv_small",
        At(256, 0.95, 74.534, 91.94),
        At(320, 1.0, 75.616, 92.768),
        scale=HALF,
    ),
    _timm(
        "mobilenetv4_conv_small_050.e3000_r224_in1k",
        "conv_small",
        At(224, 0.875, 64.778, 85.5),
        At(256, 0.95, 65.826, 86.416),
        width=0.5,
        scale=HALF,
    ),
    _timm(
        "mobilenetv4_hybrid_large.e600_r384_in1k",
        "hybrid_large",
        At(384, 0.95, 83.826, 96.748),
        At(448, 1.0, 84.264, 96.956),
    ),
    _timm(
        "mobilenetv4_hybrid_large.ix_e600_r384_in1k",
        "hybrid_large",
        At(384, 0.95, 83.996, 96.714),
        At(448, 1.0, 84.352, 96.888),
    ),
    _timm(
        "mobilenetv4_hybrid_medium.e200_r256_in12k", "hybrid_medium", At(256, 0.95), At(320, 1.0), labels=IMAGENET_12K
    ),
    _timm(
        "mobilenetv4_hybrid_medium.e200_r256_in12k_ft_in1k",
        "hybrid_medium",
        At(256, 0.95, 82.36, 96.256),
        At(320, 1.0, 82.998, 96.676),
    ),
    _timm(
        "mobilenetv4_hybrid_medium.e500_r224_in1k",
        "hybrid_medium",
        At(224, 0.95, 80.432, 95.378),
        At(256, 1.0, 81.284, 95.746),
    ),
    _timm(
        "mobilenetv4_hybrid_medium.ix_e550_r256_in1k",
        "hybrid_medium",
        At(256, 0.95, 81.478, 95.692),
        At(320, 1.0, 82.5, 96.286),
    ),
    _timm(
        "mobilenetv4_hybrid_medium.ix_e550_r384_in1k",
        "hybrid_medium",
        At(384, 0.95, 82.952, 96.47),
        At(448, 1.0, 83.39, 96.766),
    ),
)

WEIGHTS = catalog.by_name(_TIMM)
