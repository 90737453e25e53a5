"""The tensor names of V1 and V2 in Hugging Face transformers, whose weights were converted from TF-Slim.

Their classifiers have a background class before the 1000 classes of ImageNet.
"""

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
from mobilenet_common.layers import DepthwiseSeparable, InvertedResidual


def _huggingface_units(model):
    first = next((layer for _, _, layer in blocks(model)), None)
    units = _v1_units(model) if isinstance(first, DepthwiseSeparable) else _v2_units(model)
    return units + units_of([(part(model, "classifier"), "classifier")])


def _v1_units(model):
    """Return the units of a V1, whose depthwise and pointwise convolutions are numbered as separate layers."""
    units = _named(part(model, "stem"), "mobilenet_v1.conv_stem")
    for i, (_, _, layer) in enumerate(blocks(model)):
        if not isinstance(layer, DepthwiseSeparable):
            raise unnamed(layer, "huggingface")
        units += _named(layer.depthwise, f"mobilenet_v1.layer.{2 * i}")
        units += _named(layer.project, f"mobilenet_v1.layer.{2 * i + 1}")
    return units


def _v2_units(model):
    """Return the units of a V2, whose first block, which has no expansion, belongs to the stem."""
    units = _named(part(model, "stem"), "mobilenet_v2.conv_stem.first_conv")
    for i, (_, _, layer) in enumerate(blocks(model)):
        if not isinstance(layer, InvertedResidual) or layer.squeeze_excite is not None:
            raise unnamed(layer, "huggingface")
        prefix = f"mobilenet_v2.layer.{i - 1}" if i else "mobilenet_v2.conv_stem"
        units += _named(layer.expand, f"{prefix}.expand_1x1")
        units += _named(layer.depthwise, f"{prefix}.conv_3x3")
        units += _named(layer.project, f"{prefix}.reduce_1x1")
    return units + _named(part(model, "head_conv"), "mobilenet_v2.conv_1x1")


def _named(layer, name):
    return [] if layer is None else [Unit(layer, f"{name}.convolution", f"{name}.normalization")]


def _with_prefix(tensors):
    """Return the tensors with the prefix that checkpoints of models without a classifier lack."""
    if any(name.startswith("mobilenet_v") for name in tensors):
        return tensors
    prefix = "mobilenet_v2." if "conv_stem.first_conv.convolution.weight" in tensors else "mobilenet_v1."
    return {prefix + name: value for name, value in tensors.items()}


HUGGINGFACE = Layout(
    name="huggingface",
    entries=entries_of(_huggingface_units, TORCH_SUFFIXES),
    recognizes=any_matches(r"mobilenet_v[12]\.|conv_stem\.(first_conv\.)?convolution\."),
    head=re.compile(r"(classifier|mobilenet_v2\.conv_1x1)\."),
    classifier=re.compile(r"classifier\.bias"),
    dropped=TORCH_COUNTERS,
    torch_axes=True,
    rename=_with_prefix,
    background=True,
)
