"""The tensor names of timm, which follow the same rules for V1 to V4."""

import re

from mobilenet_common.checkpoints.layouts.base import (
    TORCH_COUNTERS,
    TORCH_SUFFIXES,
    Layout,
    any_matches,
    blocks,
    entries_of,
    part,
    units_of,
    unnamed,
)
from mobilenet_common.layers import (
    ConvNormActivation,
    DepthwiseSeparable,
    FusedInvertedBottleneck,
    InvertedResidual,
    MobileAttention,
    SqueezeExcite,
    UniversalInvertedBottleneck,
)


def _timm_units(model):
    units = units_of([(part(model, "stem"), "conv_stem", "bn1")])
    for stage, block, layer in blocks(model):
        prefix = f"blocks.{stage - 1}.{block - 1}."
        units += _timm_block(layer, prefix)
    conv, dense = part(model, "head_conv"), part(model, "head_dense")
    stages = max((stage for stage, *_ in blocks(model)), default=0)
    # If a dense layer follows, timm puts the convolution of the head into a separate stage, as in V3 and V4.
    before_dense = (f"blocks.{stages}.0.conv", f"blocks.{stages}.0.bn1")
    return units + units_of(
        [
            (conv, *(("conv_head", "bn2") if dense is None else before_dense)),
            (dense, "conv_head", "norm_head"),
            (part(model, "classifier"), "classifier"),
        ]
    )


def _timm_block(layer, prefix):
    def named(*pairs):
        return units_of([(unit, *(prefix + name for name in names)) for unit, *names in pairs])

    if isinstance(layer, ConvNormActivation):
        return named((layer, "conv", "bn1"))
    if isinstance(layer, SqueezeExcite):
        return named((layer.reduce, "se.conv_reduce"), (layer.expand, "se.conv_expand"))
    if isinstance(layer, DepthwiseSeparable):
        return named(
            (layer.depthwise, "conv_dw", "bn1"),
            (layer.project, "conv_pw", "bn2"),
            (layer.layer_scale, "layer_scale.gamma"),
        )
    if isinstance(layer, InvertedResidual):
        squeeze = _timm_block(layer.squeeze_excite, prefix) if layer.squeeze_excite else []
        scale = named((layer.layer_scale, "layer_scale.gamma"))
        if layer.expand is None:
            return named((layer.depthwise, "conv_dw", "bn1"), (layer.project, "conv_pw", "bn2")) + squeeze + scale
        return (
            named(
                (layer.expand, "conv_pw", "bn1"),
                (layer.depthwise, "conv_dw", "bn2"),
                (layer.project, "conv_pwl", "bn3"),
            )
            + squeeze
            + scale
        )
    if isinstance(layer, FusedInvertedBottleneck):
        return named(
            (layer.expand, "conv_exp", "bn1"),
            (layer.project, "conv_pwl", "bn2"),
            (layer.layer_scale, "layer_scale.gamma"),
        )
    if isinstance(layer, UniversalInvertedBottleneck):
        return named(
            (layer.start, "dw_start.conv", "dw_start.bn"),
            (layer.expand, "pw_exp.conv", "pw_exp.bn"),
            (layer.middle, "dw_mid.conv", "dw_mid.bn"),
            (layer.project, "pw_proj.conv", "pw_proj.bn"),
            (layer.end, "dw_end.conv", "dw_end.bn"),
            (layer.layer_scale, "layer_scale.gamma"),
        )
    if isinstance(layer, MobileAttention):
        return named(
            (layer.norm, "", "norm"),
            (layer.query_norm, "", "attn.query.norm"),
            (layer.query, "attn.query.proj"),
            (layer.key_down, "attn.key.down_conv", "attn.key.norm"),
            (layer.key, "attn.key.proj"),
            (layer.value_down, "attn.value.down_conv", "attn.value.norm"),
            (layer.value, "attn.value.proj"),
            (layer.output_projection, "attn.output.proj"),
            (layer.layer_scale, "layer_scale.gamma"),
        )
    raise unnamed(layer, "timm")


TIMM = Layout(
    name="timm",
    entries=entries_of(_timm_units, TORCH_SUFFIXES),
    recognizes=any_matches(r"conv_stem\.|blocks\.\d+\.\d+\."),
    head=re.compile(r"(classifier|conv_head|norm_head|bn2)\."),
    classifier=re.compile(r"classifier\.bias$"),
    dropped=TORCH_COUNTERS,
    torch_axes=True,
)
