"""The compact family: five small networks for little images and for images as states in reinforcement learning."""

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
    """Return an architecture of the compact family, from the columns of its table.

    The stem has stride 1, the rest comes in the order of the columns, and there is no shortcut. Every convolution but
    those of squeeze-and-excitation and attention is followed by group norm and SiLU.

    Args:
        base: Channels between the blocks; a multiple of 8 and of `heads`.
        expanded: Channels inside the bottlenecks, a multiple of 8.
        squeeze: Channels inside squeeze-and-excitation.
        heads: Of the channel attention.
        fused: Fused bottlenecks at stride 2.
        universal: Pairs of a ConvNext-like and an ExtraDW bottleneck; 0 leaves them out.
        excite: Pairs of squeeze-and-excitation and a ConvNext-like bottleneck.
        attention: Pairs of squeeze-and-excitation and channel attention.
        classifier: Width of the layer before the classes.
        dropout_rate: Before the classes, in [0, 1).
        downsampling: Whether the attention halves its map.
        name: Start of the model's name.

    Returns:
        An `Architecture` for `create_mobilenetv4`.

    Raises:
        ValueError: A column that is not allowed.
    """
    counts = {"fused": fused, "universal": universal, "excite": excite, "attention": attention}
    fused, universal, excite, attention = (integer(column, count, 0) for column, count in counts.items())
    base, heads = integer("base", base, 1), integer("heads", heads, 1)
    if base % lcm_divisor(heads):
        raise ArgumentError(f"base={base} is not allowed: it must be a multiple of 8 and of heads, {heads}.")
    fused_row = Fused(3, expanded, base, stride=2, shortcut=False, linear=False)
    plain = Universal(5, 0, expanded, base, shortcut=False, linear=False)
    extra = Universal(5, 3, expanded, base, shortcut=False, linear=False)
    attend = ChannelAttend(heads, stride=2 if downsampling else 1)
    return Architecture(
        name=name,
        stem=Conv(base),
        stages=(
            *[(fused_row,)] * fused,
            *[(plain, extra)] * universal,
            *[(Excite(squeeze), plain)] * excite,
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


def _variant(word, *columns, **options):
    return compact_architecture(*columns, name=f"mobilenetv4_compact_{word}", **options)


COMPACT_VARIANTS = {
    # base, expanded, squeeze, heads, fused, UIB + ExtraDW, SE + UIB, SE + attention, classifier
    "compact_nano": _variant("nano", 24, 64, 6, 4, 2, 2, 3, 1, 512),
    "compact_small": _variant("small", 48, 96, 12, 6, 2, 3, 4, 2, 1024),
    "compact_medium": _variant("medium", 96, 192, 24, 8, 2, 5, 6, 3, 1024),
    "compact_large": _variant("large", 224, 512, 56, 14, 3, 6, 5, 3, 1280),
    "compact_hybrid_large": _variant(
        "hybrid_large", 384, 768, 96, 16, 3, 7, 6, 4, 1280, dropout_rate=0.3, downsampling=True
    ),
}
