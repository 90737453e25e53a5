"""Converts a model's variables to another library's names and shapes; the inverse of `loading`."""

import keras
import numpy as np

from mobilenet_common.checkpoints.files import as_array
from mobilenet_common.checkpoints.layouts import LAYOUTS
from mobilenet_common.checkpoints.layouts.base import TORCH_SUFFIXES, blocks, part
from mobilenet_common.checkpoints.loading import check_complete, check_is_mobilenet, num_classes
from mobilenet_common.errors import ArgumentError, one_of

TORCH_LAYOUTS = tuple(name for name, layout in LAYOUTS.items() if layout.torch_axes)


def state_dict(model, layout):
    """Return a state dict for another library's model, `{name: array}`, with its `num_batches_tracked` counters.

    Args:
        model: A model with top that a `create_mobilenet…` function built.
        layout: `"timm"`, `"torchvision"`, `"huggingface"` or `"compact"`.

    Raises:
        ValueError: If the layout is unknown, or if the other library has no such model: one without top, a fused one,
            or one with blocks or normalizations that the library lacks.
    """
    layout = LAYOUTS[one_of("layout", layout, TORCH_LAYOUTS)]
    check_is_mobilenet(model)
    _check_counterpart(model, layout)
    entries = layout.entries(model)
    check_complete(model, entries, layout)
    tensors = {}
    for entry in entries:
        tensors[entry.name] = _in_torch_axes(as_array(keras.ops.convert_to_numpy(entry.variable)), entry, layout)
        if entry.name.endswith(TORCH_SUFFIXES["moving_variance"]):
            counter = entry.name.removesuffix(TORCH_SUFFIXES["moving_variance"]) + ".num_batches_tracked"
            tensors[counter] = np.zeros((), "int64")
    return tensors


def _check_counterpart(model, layout):
    if num_classes(model) is None:
        raise ArgumentError(
            f"{model.name} has no classifier, but every {layout.name} checkpoint has one: export a model with top."
        )
    for layer in [part(model, "stem"), *(layer for _, _, layer in blocks(model))]:
        normalization = getattr(layer, "normalization", layout.normalization)
        if normalization != layout.normalization:
            raise ArgumentError(
                f"{model.name} has the normalization {normalization!r}, but {layout.name}'s models have "
                f"{layout.normalization!r}. If the model is fused, export the model that you fused instead."
            )


def _in_torch_axes(value, entry, layout):
    """Return a value in PyTorch's axis order; the inverse of the conversion in `loading`."""
    if entry.kind == "depthwise":
        return np.ascontiguousarray(value.transpose(2, 3, 0, 1))
    if entry.kind == "dense":
        return np.ascontiguousarray(value.T)
    if entry.kind == "convolution":
        value = value.transpose(3, 2, 0, 1)
        return np.ascontiguousarray(value[:, :, 0, 0] if layout.flat.match(entry.name) else value)
    return value
