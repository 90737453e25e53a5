"""Architectures of MobileNet V4 (arXiv:2404.10518, appendix D), timm's anti-aliased variants and the compact family."""

import dataclasses

from mobilenet_common.architecture import Architecture, Attention, Conv, Dense, Fused, Head, Universal
from mobilenet_v4.compact import COMPACT_VARIANTS

FINAL = Conv(960, kernel=1)
HEAD = Head(dense=Dense(1280))

# Positional arguments of the rows:
# Conv: filters, kernel, stride
# Universal: start kernel, middle kernel, expanded filters, filters, stride
# Fused: kernel, expanded filters, filters, stride
# Attention: filters, heads, channels per head

CONV_SMALL = Architecture(
    name="mobilenetv4_conv_small",
    stem=Conv(32, stride=2, scaling="grow"),
    stages=(
        (
            Conv(32, 3, 2),
            Conv(32, 1),
        ),
        (
            Conv(96, 3, 2),
            Conv(64, 1),
        ),
        (
            Universal(5, 5, 192, 96, 2),
            Universal(0, 3, 192, 96),
            Universal(0, 3, 192, 96),
            Universal(0, 3, 192, 96),
            Universal(0, 3, 192, 96),
            Universal(3, 0, 384, 96),
        ),
        (
            Universal(3, 3, 576, 128, 2),
            Universal(5, 5, 512, 128),
            Universal(0, 5, 512, 128),
            Universal(0, 5, 384, 128),
            Universal(0, 3, 512, 128),
            Universal(0, 3, 512, 128),
        ),
        (FINAL,),
    ),
    head=HEAD,
)

CONV_MEDIUM = dataclasses.replace(
    CONV_SMALL,
    name="mobilenetv4_conv_medium",
    stages=(
        (Fused(3, 128, 48, 2),),
        (
            Universal(3, 5, 192, 80, 2),
            Universal(3, 3, 160, 80),
        ),
        (
            Universal(3, 5, 480, 160, 2),
            Universal(3, 3, 640, 160),
            Universal(3, 3, 640, 160),
            Universal(3, 5, 640, 160),
            Universal(3, 3, 640, 160),
            Universal(3, 0, 640, 160),
            Universal(0, 0, 320, 160),
            Universal(3, 0, 640, 160),
        ),
        (
            Universal(5, 5, 960, 256, 2),
            Universal(5, 5, 1024, 256),
            Universal(3, 5, 1024, 256),
            Universal(3, 5, 1024, 256),
            Universal(0, 0, 1024, 256),
            Universal(3, 0, 1024, 256),
            Universal(3, 5, 512, 256),
            Universal(5, 5, 1024, 256),
            Universal(0, 0, 1024, 256),
            Universal(0, 0, 1024, 256),
            Universal(5, 0, 512, 256),
        ),
        (FINAL,),
    ),
)

CONV_LARGE = dataclasses.replace(
    CONV_SMALL,
    name="mobilenetv4_conv_large",
    stem=Conv(24, stride=2, scaling="grow"),
    stages=(
        (Fused(3, 96, 48, 2),),
        (
            Universal(3, 5, 192, 96, 2),
            Universal(3, 3, 384, 96),
        ),
        (
            Universal(3, 5, 384, 192, 2),
            Universal(3, 3, 768, 192),
            Universal(3, 3, 768, 192),
            Universal(3, 3, 768, 192),
            Universal(3, 5, 768, 192),
            Universal(5, 3, 768, 192),
            Universal(5, 3, 768, 192),
            Universal(5, 3, 768, 192),
            Universal(5, 3, 768, 192),
            Universal(5, 3, 768, 192),
            Universal(3, 0, 768, 192),
        ),
        (
            Universal(5, 5, 768, 512, 2),
            Universal(5, 5, 2048, 512),
            Universal(5, 5, 2048, 512),
            Universal(5, 5, 2048, 512),
            Universal(5, 0, 2048, 512),
            Universal(5, 3, 2048, 512),
            Universal(5, 0, 2048, 512),
            Universal(5, 0, 2048, 512),
            Universal(5, 3, 2048, 512),
            Universal(5, 5, 2048, 512),
            Universal(5, 0, 2048, 512),
            Universal(5, 0, 2048, 512),
            Universal(5, 0, 2048, 512),
        ),
        (FINAL,),
    ),
)

HYBRID_MEDIUM = dataclasses.replace(
    CONV_MEDIUM,
    name="mobilenetv4_hybrid_medium",
    stages=(
        (Fused(3, 128, 48, 2),),
        (
            Universal(3, 5, 192, 80, 2),
            Universal(3, 3, 160, 80),
        ),
        (
            Universal(3, 5, 480, 160, 2),
            Universal(0, 0, 320, 160),
            Universal(3, 3, 640, 160),
            Universal(3, 5, 640, 160),
            Attention(160, 4, 64, kv_kernel=3, kv_stride=2),
            Universal(3, 3, 640, 160),
            Attention(160, 4, 64, kv_kernel=3, kv_stride=2),
            Universal(3, 0, 640, 160),
            Attention(160, 4, 64, kv_kernel=3, kv_stride=2),
            Universal(3, 3, 640, 160),
            Attention(160, 4, 64, kv_kernel=3, kv_stride=2),
            Universal(3, 0, 640, 160),
        ),
        (
            Universal(5, 5, 960, 256, 2),
            Universal(5, 5, 1024, 256),
            Universal(3, 5, 1024, 256),
            Universal(3, 5, 1024, 256),
            Universal(0, 0, 512, 256),
            Universal(3, 5, 512, 256),
            Universal(0, 0, 512, 256),
            Universal(0, 0, 1024, 256),
            Attention(256, 4, 64),
            Universal(3, 0, 1024, 256),
            Attention(256, 4, 64),
            Universal(5, 5, 1024, 256),
            Attention(256, 4, 64),
            Universal(5, 0, 1024, 256),
            Attention(256, 4, 64),
            Universal(5, 0, 1024, 256),
        ),
        (FINAL,),
    ),
    layer_scale=1e-5,
)

HYBRID_LARGE = dataclasses.replace(
    CONV_LARGE,
    name="mobilenetv4_hybrid_large",
    stages=(
        (Fused(3, 96, 48, 2),),
        (
            Universal(3, 5, 192, 96, 2),
            Universal(3, 3, 384, 96),
        ),
        (
            Universal(3, 5, 384, 192, 2),
            Universal(3, 3, 768, 192),
            Universal(3, 3, 768, 192),
            Universal(3, 3, 768, 192),
            Universal(3, 5, 768, 192),
            Universal(5, 3, 768, 192),
            Universal(5, 3, 768, 192),
            Attention(192, 8, 48, kv_kernel=3, kv_stride=2),
            Universal(5, 3, 768, 192),
            Attention(192, 8, 48, kv_kernel=3, kv_stride=2),
            Universal(5, 3, 768, 192),
            Attention(192, 8, 48, kv_kernel=3, kv_stride=2),
            Universal(5, 3, 768, 192),
            Attention(192, 8, 48, kv_kernel=3, kv_stride=2),
            Universal(3, 0, 768, 192),
        ),
        (
            Universal(5, 5, 768, 512, 2),
            Universal(5, 5, 2048, 512),
            Universal(5, 5, 2048, 512),
            Universal(5, 5, 2048, 512),
            Universal(5, 0, 2048, 512),
            Universal(5, 3, 2048, 512),
            Universal(5, 0, 2048, 512),
            Universal(5, 0, 2048, 512),
            Universal(5, 3, 2048, 512),
            Universal(5, 5, 2048, 512),
            Attention(512, 8, 64),
            Universal(5, 0, 2048, 512),
            Attention(512, 8, 64),
            Universal(5, 0, 2048, 512),
            Attention(512, 8, 64),
            Universal(5, 0, 2048, 512),
            Attention(512, 8, 64),
            Universal(5, 0, 2048, 512),
        ),
        (FINAL,),
    ),
    activation="gelu",
    layer_scale=1e-5,
)

VARIANTS = {
    "conv_small": CONV_SMALL,
    "conv_medium": CONV_MEDIUM,
    "conv_large": CONV_LARGE,
    "hybrid_medium": HYBRID_MEDIUM,
    "hybrid_large": HYBRID_LARGE,
    "conv_aa_medium": dataclasses.replace(CONV_MEDIUM, name="mobilenetv4_conv_aa_medium", antialias="average"),
    "conv_aa_large": dataclasses.replace(CONV_LARGE, name="mobilenetv4_conv_aa_large", antialias="average"),
    "conv_blur_medium": dataclasses.replace(CONV_MEDIUM, name="mobilenetv4_conv_blur_medium", antialias="blur"),
    **COMPACT_VARIANTS,
}
