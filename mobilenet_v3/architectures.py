"""Architectures of MobileNet V3 (arXiv:1905.02244, tables 1 and 2), their minimalistic forms, and timm's variants."""

import dataclasses

from mobilenet_common.architecture import Architecture, Conv, Dense, Head, Inverted

RE, HS = "relu", "hard_swish"
SE = 0.25


def _head(filters, **options):
    """Return a head with a dense layer after the pool, which becomes wider for widths above 1."""
    return Head(dense=Dense(filters, normalization=None, scaling="grow", **options))


LARGE = Architecture(
    name="mobilenetv3_large_{width}",
    stem=Conv(16, stride=2, scaling="fixed"),
    stages=(
        # kernel, expanded, filters, squeeze, activation, stride
        (Inverted(3, None, 16, 0, RE, 1),),
        (
            Inverted(3, 64, 24, 0, RE, 2),
            Inverted(3, 72, 24, 0, RE, 1),
        ),
        (
            Inverted(5, 72, 40, SE, RE, 2),
            Inverted(5, 120, 40, SE, RE, 1),
            Inverted(5, 120, 40, SE, RE, 1),
        ),
        (
            Inverted(3, 240, 80, 0, HS, 2),
            Inverted(3, 200, 80, 0, HS, 1),
            Inverted(3, 184, 80, 0, HS, 1),
            Inverted(3, 184, 80, 0, HS, 1),
        ),
        (
            Inverted(3, 480, 112, SE, HS, 1),
            Inverted(3, 672, 112, SE, HS, 1),
        ),
        (
            Inverted(5, 672, 160, SE, HS, 2),
            Inverted(5, 960, 160, SE, HS, 1),
            Inverted(5, 960, 160, SE, HS, 1),
        ),
        (Conv(960, kernel=1, scaling="follow"),),
    ),
    head=_head(1280, use_bias=True),
    activation=HS,
)

SMALL = dataclasses.replace(
    LARGE,
    name="mobilenetv3_small_{width}",
    stages=(
        (Inverted(3, None, 16, SE, RE, 2),),
        (
            Inverted(3, 72, 24, 0, RE, 2),
            Inverted(3, 88, 24, 0, RE, 1),
        ),
        (
            Inverted(5, 96, 40, SE, HS, 2),
            Inverted(5, 240, 40, SE, HS, 1),
            Inverted(5, 240, 40, SE, HS, 1),
        ),
        (
            Inverted(5, 120, 48, SE, HS, 1),
            Inverted(5, 144, 48, SE, HS, 1),
        ),
        (
            Inverted(5, 288, 96, SE, HS, 2),
            Inverted(5, 576, 96, SE, HS, 1),
            Inverted(5, 576, 96, SE, HS, 1),
        ),
        (Conv(576, kernel=1, scaling="follow"),),
    ),
    head=_head(1024, use_bias=True),
)


def _minimalistic(architecture, name):
    """Return `architecture` without squeeze-and-excitation, hard-swish and 5×5 kernels.

    Some hardware runs these slowly.
    """
    stages = tuple(
        tuple(
            dataclasses.replace(row, kernel=3, squeeze=0, activation=RE) if isinstance(row, Inverted) else row
            for row in stage
        )
        for stage in architecture.stages
    )
    return dataclasses.replace(architecture, name=name, stages=stages, activation=RE)


# timm's first V3 large has no shortcut in the first block, no bias in the head, and squeezed widths that aren't rounded
# to multiples of 8.
LARGE_RW = dataclasses.replace(
    LARGE,
    name="mobilenetv3_rw",
    stages=((dataclasses.replace(LARGE.stages[0][0], shortcut=False),), *LARGE.stages[1:]),
    head=_head(1280),
    squeeze_activation=None,
    squeeze_divisor=1,
)

# timm's "d" variant is 1.5 times as wide, and deeper.
LARGE_150D = dataclasses.replace(
    LARGE,
    name="mobilenetv3_large_150d",
    stem=Conv(24, stride=2, scaling="fixed"),
    stages=(
        (
            Inverted(3, None, 24, 0, RE, 1),
            Inverted(3, None, 24, 0, RE, 1),
        ),
        (
            Inverted(3, 96, 40, 0, RE, 2),
            Inverted(3, 120, 40, 0, RE, 1),
            Inverted(3, 120, 40, 0, RE, 1),
        ),
        (
            Inverted(5, 120, 64, SE, RE, 2),
            Inverted(5, 192, 64, SE, RE, 1),
            Inverted(5, 192, 64, SE, RE, 1),
            Inverted(5, 192, 64, SE, RE, 1),
        ),
        (
            Inverted(3, 384, 120, 0, HS, 2),
            Inverted(3, 304, 120, 0, HS, 1),
            Inverted(3, 304, 120, 0, HS, 1),
            Inverted(3, 280, 120, 0, HS, 1),
            Inverted(3, 280, 120, 0, HS, 1),
        ),
        (
            Inverted(3, 720, 168, SE, HS, 1),
            Inverted(3, 1008, 168, SE, HS, 1),
            Inverted(3, 1008, 168, SE, HS, 1),
        ),
        (
            Inverted(5, 1008, 240, SE, HS, 2),
            Inverted(5, 1440, 240, SE, HS, 1),
            Inverted(5, 1440, 240, SE, HS, 1),
            Inverted(5, 1440, 240, SE, HS, 1),
        ),
        (
            Conv(1440, kernel=1, scaling="follow"),
            Conv(1440, kernel=1, scaling="follow"),
        ),
    ),
)

VARIANTS = {
    "large": LARGE,
    "small": SMALL,
    "large_minimalistic": _minimalistic(LARGE, "mobilenetv3_large_minimal_{width}"),
    "small_minimalistic": _minimalistic(SMALL, "mobilenetv3_small_minimal_{width}"),
    "large_1.5d": LARGE_150D,
    "large_rw": LARGE_RW,
}
