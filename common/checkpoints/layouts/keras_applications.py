"""The tensor names of keras.applications, which differ between V1, V2 and V3.

V3's published files have names from before Keras 3 (`expanded_conv/depthwise/BatchNorm`). The units are in the
execution order of Keras's models, so that files with other names can be loaded by the order of the layers, as in Keras.
"""

import re
from typing import Any

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
    pairs: list[tuple[Any, ...]] = [
        (getattr(layer, step), f"{prefix}{step}", f"{prefix}{step}_{norm}") for step in ("expand", "depthwise")
    ]
    if layer.squeeze_excite is not None:
        pairs.append((layer.squeeze_excite.reduce, f"{prefix}squeeze_excite_conv"))
        pairs.append((layer.squeeze_excite.expand, f"{prefix}squeeze_excite_conv_1"))
    return units_of([*pairs, (layer.project, f"{prefix}project", f"{prefix}project_{norm}")])


def _rename_legacy(tensors):
    """Return the tensors with Keras 3's names if all layers of a V3 model have the older names, else unchanged."""
    if not any("/BatchNorm/" in name for name in tensors):
        return tensors
    names = {}
    for name in tensors:
        layer, _, index = name.rpartition("/")
        if re.match(r"expanded_conv|(Conv(_[12])?|Logits)(/|$)", layer):
            layer = layer.replace("/BatchNorm", "_bn").replace("/", "_")
            layer = layer.replace("Conv", "conv").replace("Logits", "logits")
            if not _KERAS_NAMES.match(f"{layer}/{index}"):
                return tensors
        names[name] = f"{layer}/{index}"
    return {names[name]: value for name, value in tensors.items()}


def _split(tensors):
    """Return the tensors of Keras's model and the tensors of layers that users added before or after it."""
    if not any(name in tensors for name in _FIRST_BLOCK):  # Unknown names are loaded by the order of the layers.
        return tensors, {}
    head, features = _classifier_of(tensors)
    others = [name for name in _CLASSIFIERS if name != head or not _has_inputs(tensors.get(f"{name}/0"), features)]
    network = {
        name: value
        for name, value in tensors.items()
        if _KERAS_NAMES.match(name) and name.rpartition("/")[0] not in others
    }
    return network, {name: value for name, value in tensors.items() if name not in network}


def _has_inputs(kernel, features):
    return kernel is None or (kernel.ndim > 1 and kernel.shape[-2] == features)


def _classifier_of(tensors):
    """Return `(name of the classifier, number of its input features)`.

    The number is None if the layer before the classifier is missing.
    """
    if "conv_dw_1/0" in tensors:
        last = tensors.get("conv_pw_13_bn/0")
        return "conv_preds", None if last is None else last.shape[0]
    if any(name.startswith("block_") for name in tensors):
        last = tensors.get("Conv_1_bn/0")
        return "predictions", None if last is None else last.shape[0]
    last = tensors.get("conv_2/1")
    return "logits", None if last is None else last.shape[0]


_FIRST_BLOCK = ("conv_dw_1/0", "expanded_conv_depthwise/0")
_CLASSIFIERS = ("conv_preds", "predictions", "logits")
_KERAS_NAMES = re.compile(
    r"((bn_)?[Cc]onv(_?[12])?(_bn)?|conv_(dw|pw)_\d+(_bn)?|conv_preds|predictions|logits"
    r"|(expanded_conv|block)(_\d+)?_(expand|depthwise|project)(_BN|_bn)?"
    r"|expanded_conv(_\d+)?_squeeze_excite_conv(_1)?)/\d+$"
)

KERAS = Layout(
    name="keras",
    entries=entries_of(_keras_units, KERAS_SUFFIXES),
    recognizes=any_matches(r"(conv_dw_1|expanded_conv_depthwise|expanded_conv/depthwise)/0$"),
    head=re.compile(r"(conv_preds|predictions|Conv_1|Conv_1_bn|conv_2|logits)/"),
    classifier=re.compile(r"(conv_preds|predictions|logits|Logits)/1$"),
    rename=_rename_legacy,
    in_order=True,
    split=_split,
    classifier_of=_classifier_of,
)
