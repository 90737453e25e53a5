"""The tensor names of the compact family's original code."""

import re

from mobilenet_common.checkpoints.layouts.base import (
    TORCH_COUNTERS,
    TORCH_SUFFIXES,
    Layout,
    Unit,
    any_matches,
    blocks,
    entries_of,
    part,
    units_of,
    unnamed,
)
from mobilenet_common.layers import (
    ChannelAttention,
    FusedInvertedBottleneck,
    SqueezeExcite,
    UniversalInvertedBottleneck,
)


def _compact_units(model):
    units = []
    stem = part(model, "stem")
    if stem is not None:
        units.append(Unit(stem, "features.0.0.stem.0", "features.0.0.stem.1"))
    for stage, block, layer in blocks(model):
        units += _compact_block(layer, f"features.{stage}.{block - 1}.")
    return units + units_of(
        [
            (part(model, "head_dense"), "classificator.2", "classificator.3"),
            (part(model, "classifier"), "classificator.6"),
        ]
    )


def _compact_block(layer, prefix):
    def sequence(word, steps):
        """Return the units of a sequential module, in which convolution, normalization and activation are numbered."""
        steps = [step for step in steps if step is not None]
        return [Unit(step, f"{prefix}{word}.{3 * i}", f"{prefix}{word}.{3 * i + 1}") for i, step in enumerate(steps)]

    if isinstance(layer, FusedInvertedBottleneck):
        return sequence("fused_ib", (layer.expand, layer.project))
    if isinstance(layer, UniversalInvertedBottleneck):
        word = "uib" if layer.middle is None else "extra_dw"
        return sequence(word, (layer.start, layer.expand, layer.middle, layer.project))
    if isinstance(layer, SqueezeExcite):
        return [Unit(layer.reduce, f"{prefix}SE.1"), Unit(layer.expand, f"{prefix}SE.3")]
    if isinstance(layer, ChannelAttention):
        return units_of(
            [
                (layer.query_down, f"{prefix}downsample_query"),
                (layer.kv_down, f"{prefix}downsample_kv"),
                (layer.query, f"{prefix}query_conv"),
                (layer.key, f"{prefix}key_conv"),
                (layer.value, f"{prefix}value_conv"),
            ]
        )
    raise unnamed(layer, "compact")


COMPACT = Layout(
    name="compact",
    entries=entries_of(_compact_units, TORCH_SUFFIXES),
    recognizes=any_matches(r"features\.\d+\.\d+\.(stem|fused_ib|uib|extra_dw|SE)\."),
    head=re.compile(r"classificator\."),
    classifier=re.compile(r"classificator\.6\.bias$"),
    dropped=TORCH_COUNTERS,
    torch_axes=True,
    normalization="group",
    flat=re.compile(r"classificator\.2\.weight"),
)
