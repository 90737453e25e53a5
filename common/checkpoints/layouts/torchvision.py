"""The tensor names of torchvision's V2 and V3."""

import re

from mobilenet_common.checkpoints.layouts.base import (
    TORCH_COUNTERS,
    TORCH_SUFFIXES,
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
from mobilenet_common.layers import ConvNormActivation, InvertedResidual, SqueezeExcite


def _torchvision_units(model):
    """Return the units of a model.

    V2 numbers the steps of a block under `conv`, without a nested module for the projection; V3 numbers them under
    `block`.
    """
    units = units_of([(part(model, "stem"), "features.0.0", "features.0.1")])
    index = 0
    version3 = ends_in_convolution(model)
    for index, (_, _, layer) in enumerate(blocks(model), 1):
        prefix = f"features.{index}."
        if isinstance(layer, ConvNormActivation):
            units.append(Unit(layer, f"{prefix}0", f"{prefix}1"))
        elif not isinstance(layer, InvertedResidual):
            raise unnamed(layer, "torchvision")
        elif version3:
            units += _torchvision_v3_block(layer, prefix + "block.")
        else:
            units += _torchvision_v2_block(layer, prefix + "conv.")
    dense = part(model, "head_dense")
    return units + units_of(
        [
            (part(model, "head_conv"), f"features.{index + 1}.0", f"features.{index + 1}.1"),
            (dense, "classifier.0"),
            (part(model, "classifier"), "classifier.3" if dense else "classifier.1"),
        ]
    )


def _torchvision_v2_block(layer, prefix):
    path = [unit for unit in (layer.expand, layer.depthwise) if unit is not None]
    units = [Unit(unit, f"{prefix}{i}.0", f"{prefix}{i}.1") for i, unit in enumerate(path)]
    return [*units, Unit(layer.project, f"{prefix}{len(path)}", f"{prefix}{len(path) + 1}")]


def _torchvision_v3_block(layer, prefix):
    units = []
    path = (layer.expand, layer.depthwise, layer.squeeze_excite, layer.project)
    for i, step in enumerate(step for step in path if step is not None):
        if isinstance(step, SqueezeExcite):
            units += [Unit(step.reduce, f"{prefix}{i}.fc1"), Unit(step.expand, f"{prefix}{i}.fc2")]
        else:
            units.append(Unit(step, f"{prefix}{i}.0", f"{prefix}{i}.1"))
    return units


TORCHVISION = Layout(
    name="torchvision",
    entries=entries_of(_torchvision_units, TORCH_SUFFIXES),
    recognizes=any_matches(r"features\.0\.0\.weight|features\.\d+\.(conv|block)\."),
    head=re.compile(r"classifier\."),
    classifier=re.compile(r"classifier\.[13]\.bias$"),
    dropped=TORCH_COUNTERS,
    torch_axes=True,
    flat=re.compile(r"classifier\.0\.weight"),
)
