"""Loads a checkpoint's tensors into a model, completely or not at all."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from mobilenet_common.checkpoints.image_facts import note_image_facts
from mobilenet_common.checkpoints.layouts.base import part
from mobilenet_common.checkpoints.named_tensors import StateDict
from mobilenet_common.errors import ArgumentError, CheckpointError
from mobilenet_common.layers.records import warn_if_different
from mobilenet_common.nesting import stem_of, where_inside
from mobilenet_common.notices import warn
from mobilenet_common.types import PathLike

_SHOWN = 8
_HEAD = ("head_conv", "head_dense", "classifier")  # in execution order


def load_checkpoint(model: keras.Model, source: PathLike | Mapping[str, Any], layout: str | None = None) -> keras.Model:
    """Load published or converted weights into a model of this library.

    Every variable of the model must get a tensor, and every tensor of the network must match a variable. There are two
    exceptions: PyTorch's `num_batches_tracked` counters are dropped, and a model without top ignores the head's
    tensors. All tensors are checked before any variable is assigned, so the model is unchanged after an error. Pickled
    code is never run.

    The function finds the network under the names that trainers and wrappers use (such as `state_dict`, `model`,
    `module.` and `_orig_mod.`) and inside other Keras models. If a checkpoint also has averaged weights, they are
    loaded, as in timm.

    Args:
        model: A model that a `create_mobilenet…` function built.
        source: Path of a safetensors, PyTorch or Keras file, with any extension, or a mapping of names to arrays.
        layout: Library whose tensor names the checkpoint uses: `"timm"`, `"torchvision"`, `"compact"`, `"keras"`
            (keras.applications), `"native"` (this library's own files) or `"huggingface"` (transformers' V1 and V2,
            whose background class is left out if the model has no output for it). None detects the layout.

    Returns:
        The model. Afterwards, `mobilenet_zoo.preprocessing(model)` returns the preprocessing of the weights, as far as
        it is known from the file's name, layout and content, or from a configuration in the same folder.

    Raises:
        ValueError: If the layout is unknown or has no names for the model's blocks.
        CheckpointError: If the file can't be read, or if tensors are missing, left over, misshapen or not finite; the
            error lists them.

    Warns:
        MobileNetWarning: If the checkpoint has several networks or other tensors that were left out, or if the model
            contains a normalization of images that differs from the one that the weights need.
    """
    state = StateDict.open(source, layout)
    load_into(model, state)
    note_image_facts(model, state)
    stem = stem_of(model)
    if state.recorded and hasattr(stem, "normalization"):
        warn_if_different(stem, state.source, **state.recorded)
    return model


def load_into(model, checkpoint, adapt=False):
    """Load a `StateDict` into a model, as `load_checkpoint` does.

    Args:
        model: The model.
        checkpoint: The `StateDict`.
        adapt: Whether to adapt the checkpoint to the model. If the number of classes differs, the classifier keeps its
            initial weights. If the checkpoint has no classifier, the classifier and the layers of the head that the
            checkpoint lacks keep their initial weights. If the number of input channels differs, the stem gets an
            adapted kernel.
    """
    layout = checkpoint.layout
    if layout.name != "native":
        check_is_mobilenet(model)
    entries = layout.entries(model)
    check_complete(model, entries, layout)
    classes = num_classes(model)
    if classes is not None:
        checkpoint = checkpoint.for_classes(classes)
    wanted = {entry.name for entry in entries}
    claimed = _claimed(model, checkpoint, wanted)
    tensors = checkpoint.tensors | claimed
    if layout.in_order and not any(name in tensors for name in wanted):
        tensors = _in_order(tensors, entries, classes is not None)
    checkpoint = dataclasses.replace(checkpoint, tensors=tensors)
    fresh = []
    if adapt:
        tensors, entries, fresh = _adapted(checkpoint, entries)
    missing = [entry.name for entry in entries if entry.name not in tensors]
    misshapen, not_finite, values = {}, [], []
    for entry in entries:
        tensor = tensors.get(entry.name)
        if tensor is None:
            continue
        value = _to_keras_axes(tensor, entry, layout.torch_axes)
        if value is None:
            misshapen[entry.name] = (tuple(tensor.shape), _expected_shape(entry, layout.torch_axes))
        elif not np.all(np.isfinite(value)):
            not_finite.append(entry.name)
        else:
            values.append((entry.variable, value))
    left_over = _left_over(model, tensors, entries, layout)
    if missing or left_over or misshapen or not_finite:
        raise _mismatch_error(model, checkpoint, missing, left_over, misshapen, not_finite)
    for variable, value in values:
        variable.assign(value)
    _warn_of_changes(checkpoint, classes, fresh, [name for name in checkpoint.left if name not in claimed])
    return model


def check_is_mobilenet(model: keras.Model) -> None:
    """Raise a `ValueError` if `model` is not a MobileNet itself but contains one as a layer."""
    hint = where_inside(model)
    if hint:
        raise ArgumentError(
            f"{model.name} is not a MobileNet itself, and other libraries have no names for its layers.{hint}"
        )


def num_classes(model):
    """Return the number of outputs of the model's classifier, or None if it has no classifier."""
    classifier = next((layer for layer in model.layers if layer.name == "classifier"), None)
    return None if classifier is None else classifier.kernel.shape[-1]


def _claimed(model, checkpoint, wanted):
    """Return the checkpoint's tensors outside the network that fit layers which a user has added to `model`.

    If the user has added no layers to the model, tensors whose names match the head are ignored: they belong to a
    user's layer that has the same name by chance.
    """
    extended = part(model, "stem") is None
    head = checkpoint.layout.head
    return {
        name: tensor
        for name, tensor in checkpoint.left.items()
        if name in wanted and (extended or not head.match(name))
    }


def _in_order(tensors, entries, with_top):
    """Rename the tensors to the names of `entries`, layer by layer in order; if the layers don't match, do nothing."""
    theirs = list(dict.fromkeys(name.rpartition("/")[0] for name in tensors))
    ours = list(dict.fromkeys(entry.name.rpartition("/")[0] for entry in entries))
    if len(theirs) < len(ours) or (with_top and len(theirs) > len(ours)):
        return tensors
    names = dict(zip(theirs, ours, strict=False))  # For a model without top, the remaining layer is the classifier.
    parts = {name: name.rpartition("/") for name in tensors}
    return {f"{names[layer]}/{index}": tensors[name] for name, (layer, _, index) in parts.items() if layer in names}


def _adapted(checkpoint, entries):
    """Return the adapted tensors and entries, and the names of the layers that keep their initial weights."""
    tensors = dict(checkpoint.tensors)
    bias = next((entry for entry in entries if entry.variable.path == "classifier/bias"), None)
    fresh = []
    if bias is not None and checkpoint.num_classes is None:
        fresh = _missing_head_layers(tensors, entries)
    elif bias is not None and checkpoint.num_classes != bias.variable.shape[0]:
        fresh = ["classifier"]
    for entry in entries:
        if _owner(entry) in fresh:
            tensors.pop(entry.name, None)
        elif entry.variable.path == "stem/kernel" and entry.name in tensors:
            axis = 1 if checkpoint.layout.torch_axes else 2
            tensors[entry.name] = with_channels(tensors[entry.name], entry.variable.shape[2], axis)
    return tensors, [entry for entry in entries if _owner(entry) not in fresh], fresh


def _missing_head_layers(tensors, entries):
    """Return the last layers of the head, up to the classifier, for which a checkpoint has no tensors."""
    fresh = []
    for layer in reversed(_HEAD):
        names = [entry.name for entry in entries if _owner(entry) == layer]
        if any(name in tensors for name in names):
            break
        fresh += [layer] if names else []
    return fresh[::-1]


def _owner(entry):
    """Return the name of the model's layer that owns the variable of an entry."""
    return entry.variable.path.partition("/")[0]


def _warn_of_changes(checkpoint, classes, fresh, left):
    """Issue a warning for each part of the checkpoint that was changed or left out."""
    source, theirs = checkpoint.source, checkpoint.num_classes
    if fresh and theirs is not None:
        warn(f"{source} has {theirs} classes: the classifier for {classes} classes is new and must be trained.")
    elif fresh:
        verb = "is" if len(fresh) == 1 else "are"
        warn(f"{source} has no classifier: {' and '.join(fresh)} {verb} new and must be trained.")
    elif checkpoint.adopted and classes is not None:
        warn(f"{source} has a layer {checkpoint.adopted} after the body, which was loaded as the classifier.")
    if checkpoint.adopted and classes is None:
        left = [checkpoint.adopted]
    if left:
        warn(f"{source} has weights outside the network. Left out: {_listed(_layers(left))}.")


def _layers(names):
    """Return the layers of Keras variables called `layer/0`; names from PyTorch stay unchanged."""
    return list(dict.fromkeys(name.rpartition("/")[0] or name for name in names))


def _listed(names):
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def with_channels(kernel, channels, axis):
    """Adapt a convolution's kernel to another number of input channels, as timm does.

    For one channel, the kernel is summed over its channels. For other numbers, its channels are repeated in turn and
    scaled so that the output keeps its magnitude.
    """
    current = kernel.shape[axis] if kernel.ndim == 4 else channels
    if current == channels:
        return kernel
    if channels == 1:
        return kernel.sum(axis=axis, keepdims=True)
    return np.take(kernel, np.arange(channels) % current, axis=axis) * np.asarray(current / channels, kernel.dtype)


def check_complete(model, entries, layout):
    """Raise a `ValueError` if the layout has no name for one of the model's variables."""
    named = {id(entry.variable) for entry in entries}
    for variable in model.weights:
        if id(variable) not in named:
            raise ArgumentError(
                f"layout={layout.name!r} has no name for {variable.path}: no model in that layout has such a variable."
            )


def _to_keras_axes(tensor, entry, torch_axes):
    """Return the tensor in the axis order and shape of the variable, or None if its shape or dtype doesn't fit."""
    if not np.issubdtype(tensor.dtype, np.number):
        return None
    shape = tuple(entry.variable.shape)
    if torch_axes and tensor.ndim == 4:
        tensor = tensor.transpose((2, 3, 0, 1) if entry.kind == "depthwise" else (2, 3, 1, 0))
    elif torch_axes and tensor.ndim == 2 and entry.kind != "vector":
        tensor = tensor.T
    if entry.kind in ("convolution", "dense") and tensor.shape != shape:
        # On a pooled map, a dense layer and a 1x1 convolution are equivalent.
        if tuple(n for n in tensor.shape if n != 1) == tuple(n for n in shape if n != 1) and tensor.ndim != len(shape):
            tensor = tensor.reshape(shape)
    return tensor if tensor.shape == shape else None


def _expected_shape(entry, torch_axes):
    """Return the shape that the checkpoint's tensor should have."""
    shape = tuple(entry.variable.shape)
    if not torch_axes or entry.kind == "vector":
        return shape
    if entry.kind == "dense":
        return shape[::-1]
    rows, columns, inputs, outputs = shape
    return (inputs, outputs, rows, columns) if entry.kind == "depthwise" else (outputs, inputs, rows, columns)


def _left_over(model, tensors, entries, layout):
    wanted = {entry.name for entry in entries}
    left_over = [name for name in tensors if name not in wanted and not layout.dropped.search(name)]
    if num_classes(model) is not None:
        return left_over
    return [name for name in left_over if not layout.head.match(name)]


def _mismatch_error(model, checkpoint, missing, left_over, misshapen, not_finite):
    parts = [f"{checkpoint.source} ({checkpoint.layout.name} layout) does not fit {model.name}, which is unchanged."]
    shapes = [f"{name} is {actual}, expected {expected}" for name, (actual, expected) in misshapen.items()]
    for title, names in (
        ("Missing", missing),
        ("Left over", left_over),
        ("Wrong shape", shapes),
        ("Not finite", not_finite),
    ):
        if names:
            parts.append(f"{title} ({len(names)}): {_listed(names)}.")
    if checkpoint.left:
        parts.append(f"Outside the network: {_listed(_layers(checkpoint.left))}.")
    if checkpoint.num_classes is None and missing and all(checkpoint.layout.head.match(name) for name in missing):
        parts.append(
            "The checkpoint has no classifier: pass it as weights= to a create function, which creates a new one, or "
            "load it into a model with include_top=False."
        )
    parts.append("Check that variant, width, classes and input channels are those of the checkpoint.")
    return CheckpointError(
        "\n".join(parts), missing=missing, left_over=left_over, misshapen=misshapen, not_finite=not_finite
    )
