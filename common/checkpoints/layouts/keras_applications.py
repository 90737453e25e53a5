"""The names of keras.applications, V1, V2 and V3; each generation has a scheme of its own.

V3's published files have names from before Keras 3 (`expanded_conv/depthwise/BatchNorm`): Keras loads them by the order
of the layers, so the units here are in the order in which Keras's models run.
"""

import re

from mobilenet_common.checkpoints.layouts.base import (
    KERAS_SUFFIXES,
    Layout,
    Unit,
    any_matches,
    blocks,
    ends_in_convolution,
    entries_of,
    part,
    units_of,
    unnamed,
)
from mobilenet_common.layers import ConvNormActivation, DepthwiseSeparable, InvertedResidual


def _keras_units(model):
    first = next((layer for _, _, layer in blocks(model)), None)
    if isinstance(first, DepthwiseSeparable):
        return _keras_v1_units(model)
    return _keras_v3_units(model) if ends_in_convolution(model) else _keras_v2_units(model)


def _keras_v1_units(model):
    units = units_of([(part(model, "stem"), "conv1", "conv1_bn")])
    for i, (_, _, layer) in enumerate(blocks(model), 1):
        if not isinstance(layer, DepthwiseSeparable):
            raise unnamed(layer, "keras")
        units.append(Unit(layer.depthwise, f"conv_dw_{i}", f"conv_dw_{i}_bn"))
        units.append(Unit(layer.project, f"conv_pw_{i}", f"conv_pw_{i}_bn"))
    return units + units_of([(part(model, "classifier"), "conv_preds")])


def _keras_v2_units(model):
    units = units_of([(part(model, "stem"), "Conv1", "bn_Conv1")])
    for i, (_, _, layer) in enumerate(blocks(model)):
        prefix = f"block_{i}_" if i else "expanded_conv_"
        units += _keras_inverted(layer, prefix, "BN")
    return units + units_of(
        [(part(model, "head_conv"), "Conv_1", "Conv_1_bn"), (part(model, "classifier"), "predictions")]
    )


def _keras_v3_units(model):
    units = units_of([(part(model, "stem"), "conv", "conv_bn")])
    for i, (_, _, layer) in enumerate(blocks(model)):
        if isinstance(layer, ConvNormActivation):
            units.append(Unit(layer, "conv_1", "conv_1_bn"))
        else:
            units += _keras_inverted(layer, f"expanded_conv_{i}_" if i else "expanded_conv_", "bn")
    return units + units_of([(part(model, "head_dense"), "conv_2"), (part(model, "classifier"), "logits")])


def _keras_inverted(layer, prefix, norm):
    if not isinstance(layer, InvertedResidual):
        raise unnamed(layer, "keras")
    pairs = [(getattr(layer, step), f"{prefix}{step}", f"{prefix}{step}_{norm}") for step in ("expand", "depthwise")]
    if layer.squeeze_excite is not None:
        pairs.append((layer.squeeze_excite.reduce, f"{prefix}squeeze_excite_conv"))
        pairs.append((layer.squeeze_excite.expand, f"{prefix}squeeze_excite_conv_1"))
    return units_of([*pairs, (layer.project, f"{prefix}project", f"{prefix}project_{norm}")])


KERAS = Layout(
    name="keras",
    entries=entries_of(_keras_units, KERAS_SUFFIXES),
    recognises=any_matches(r"(conv1|Conv1|conv|Conv|conv_dw_1|expanded_conv_depthwise)/0$"),
    head=re.compile(r"(conv_preds|predictions|Conv_1|Conv_1_bn|conv_2|logits)/"),
    classifier=re.compile(r"(conv_preds|predictions|logits|Logits)/1$"),
    in_order=True,
)
