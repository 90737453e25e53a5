"""The compact family: five networks for small images, such as image observations in reinforcement learning."""

from mobilenet_common.architecture import (
    Architecture,
    ChannelAttend,
    Conv,
    Dense,
    Excite,
    Fused,
    Head,
    Universal,
)
from mobilenet_common.conventions import PYTORCH
from mobilenet_common.errors import ArgumentError, integer
from mobilenet_common.widths import lcm_divisor


def compact_architecture(
    base: int,
    expanded: int,
    squeeze: int,
    heads: int,
    fused: int,
    universal: int,
    excite: int,
    attention: int,
    classifier: int = 1024,
    *,
    dropout_rate: float = 0.2,
    downsampling: bool = False,
    name: str = "mobilenetv4_compact",
) -> Architecture:
    """Return an architecture of the compact family.

    The stem has stride 1. The blocks follow in the order of the arguments `fused`, `universal`, `excite` and
    `attention`, of which at least one must be positive. No block has a shortcut. All convolutions except those of
    squeeze-and-excitation and attention are followed by group norm and SiLU.

    Args:
        base: Number of channels between the blocks, a multiple of 8 and of `heads`.
        expanded: Number of channels inside the bottlenecks, a multiple of 8.
        squeeze: Number of channels inside squeeze-and-excitation.
        heads: Number of heads of the channel attention.
        fused: Number of fused bottlenecks with stride 2.
        universal: Number of pairs, each a ConvNext-like bottleneck followed by an ExtraDW bottleneck.
        excite: Number of pairs, each squeeze-and-excitation followed by a ConvNext-like bottleneck.
        attention: Number of pairs, each squeeze-and-excitation followed by channel attention.
        classifier: Number of channels of the dense layer before the classifier.
        dropout_rate: Dropout rate before the classifier, in [0, 1).
        downsampling: Whether each channel attention halves the height and width.
        name: Start of the model's name.

    Returns:
        An `Architecture` for `create_mobilenetv4`.

    Raises:
        ValueError: If an argument has a value that isn't allowed.
    """
    counts = {"fused": fused, "universal": universal, "excite": excite, "attention": attention}
    fused, universal, excite, attention = (integer(column, count, 0) for column, count in counts.items())
    base, heads = integer("base", base, 1), integer("heads", heads, 1)
    if base % lcm_divisor(heads):
        raise ArgumentError(f"base={base} is not allowed: it must be a multiple of 8 and of heads={heads}.")
    fused_row = Fused(3, expanded, base, stride=2, shortcut=False, linear=False)
    convnext_like = Universal(5, 0, expanded, base, shortcut=False, linear=False)
    extra_dw = Universal(5, 3, expanded, base, shortcut=False, linear=False)
    attend = ChannelAttend(heads, stride=2 if downsampling else 1)
    return Architecture(
        name=name,
        stem=Conv(base),
        stages=(
            *[(fused_row,)] * fused,
            *[(convnext_like, extra_dw)] * universal,
            *[(Excite(squeeze), convnext_like)] * excite,
            *[(Excite(squeeze), attend)] * attention,
        ),
        head=Head(dense=Dense(classifier, normalization="batch", use_bias=True)),
        divisor=lcm_divisor(heads),
        activation="silu",
        normalization="group",
        **PYTORCH.options,
        dropout_rate=dropout_rate,
        minimum_size=8,
    )


def _variant(suffix, *columns, **options):
    return compact_architecture(*columns, name=f"mobilenetv4_compact_{suffix}", **options)


COMPACT_VARIANTS = {
    # base, expanded, squeeze, heads, fused, universal, excite, attention, classifier
    "compact_nano": _variant("nano", 24, 64, 6, 4, 2, 2, 3, 1, 512),
    "compact_small": _variant("small", 48, 96, 12, 6, 2, 3, 4, 2, 1024),
    "compact_medium": _variant("medium", 96, 192, 24, 8, 2, 5, 6, 3, 1024),
    "compact_large": _variant("large", 224, 512, 56, 14, 3, 6, 5, 3, 1280),
    "compact_hybrid_large": _variant(
        "hybrid_large", 384, 768, 96, 16, 3, 7, 6, 4, 1280, dropout_rate=0.3, downsampling=True
    ),
}
