"""Puts a checkpoint's tensors into a model: all of them, or none."""

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
_HEAD = ("head_conv", "head_dense", "classifier")  # in the order in which they run


def load_checkpoint(model: keras.Model, source: PathLike | Mapping[str, Any], layout: str | None = None) -> keras.Model:
    """Load published or converted weights into a model of this library.

    Every variable of the model must get a tensor, and every tensor of the network must have a place; PyTorch's batch
    counters are dropped, and for a model without top the classifier's tensors are not missed. Nothing is assigned
    before all of it has been checked, so after an error the model is as it was. Pickled code is never run.

    The network is found below the names that trainers and wrappers give it (`state_dict`, `model`, `module.`,
    `_orig_mod.` and such) and inside other Keras models. Of averaged and other weights the averaged ones are loaded, as
    timm does.

    Args:
        model: A model that a `create_mobilenet…` function built.
        source: The path of a safetensors, PyTorch or Keras file, with any ending, or a mapping of names to arrays.
        layout: The library whose names the tensors have: `"timm"`, `"torchvision"`, `"compact"`, `"keras"`
            (keras.applications), `"native"` (this library's own files) or `"huggingface"` (transformers' V1 and V2,
            whose background class is left out if the model has no output for it). None to recognize it.

    Returns:
        The model. `mobilenet_zoo.preprocessing` then prepares images as the weights need them, as far as the file's
        name, its layout or what is in it and beside it tells.

    Raises:
        ValueError: An unknown layout, or one that has no names for this model's blocks.
        CheckpointError: The file can't be read, or tensors are missing, left over, misshapen or not finite; the
            error lists them.

    Warns:
        MobileNetWarning: Of several networks one was taken, something beside the network was left out, or the model
            normalizes images inside and the weights need it done differently.
    """
    state = StateDict.open(source, layout)
    load_into(model, state)
    note_image_facts(model, state)
    stem = stem_of(model)
    if state.recorded and hasattr(stem, "normalization"):
        warn_if_different(stem, state.source, **state.recorded)
    return model


def load_into(model, checkpoint, adapt=False):
    """Load a `StateDict` as `load_checkpoint` does.

    With `adapt`, a classifier for another number of classes than the checkpoint's, and the layers of the head that the
    checkpoint lacks together with the classifier, keep their fresh weights; a stem for other channels than the
    checkpoint's three gets a kernel made from theirs.
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
        value = _in_our_axes(tensor, entry, layout.torch_axes)
        if value is None:
            misshapen[entry.name] = (tuple(tensor.shape), _shape_there(entry, layout.torch_axes))
        elif not np.all(np.isfinite(value)):
            not_finite.append(entry.name)
        else:
            values.append((entry.variable, value))
    left_over = _left_over(model, tensors, entries, layout)
    if missing or left_over or misshapen or not_finite:
        raise _does_not_fit(model, checkpoint, missing, left_over, misshapen, not_finite)
    for variable, value in values:
        variable.assign(value)
    _notify(checkpoint, classes, fresh, [name for name in checkpoint.left if name not in claimed])
    return model


def check_is_mobilenet(model: keras.Model) -> None:
    """Raise a `ValueError` if the MobileNet of `model` is a layer of it, where no library's names reach."""
    inside = where_inside(model)
    if inside:
        raise ArgumentError(
            f"{model.name} is not a MobileNet itself, and no other library has names for its layers.{inside}"
        )


def num_classes(model):
    """Return outputs of the model's classifier, or None without one."""
    classifier = next((layer for layer in model.layers if layer.name == "classifier"), None)
    return None if classifier is None else classifier.kernel.shape[-1]


def _claimed(model, checkpoint, wanted):
    """Return what the checkpoint holds beside the network for the layers a user has added to `model`.

    Layers of a user that happen to be called as those of the head don't belong to a model that isn't extended.
    """
    extended = part(model, "stem") is None
    head = checkpoint.layout.head
    return {
        name: tensor
        for name, tensor in checkpoint.left.items()
        if name in wanted and (extended or not head.match(name))
    }


def _in_order(tensors, entries, with_top):
    """Return the tensors by the names of `entries`, layer by layer; unchanged if there are not as many layers."""
    theirs = list(dict.fromkeys(name.rpartition("/")[0] for name in tensors))
    ours = list(dict.fromkeys(entry.name.rpartition("/")[0] for entry in entries))
    if len(theirs) < len(ours) or (with_top and len(theirs) > len(ours)):
        return tensors
    names = dict(zip(theirs, ours, strict=False))  # without top, what is left of theirs is the classifier
    parts = {name: name.rpartition("/") for name in tensors}
    return {f"{names[layer]}/{index}": tensors[name] for name, (layer, _, index) in parts.items() if layer in names}


def _adapted(checkpoint, entries):
    """Return tensors and entries that fit the model's own classes and channels, and the layers left fresh."""
    tensors = dict(checkpoint.tensors)
    bias = next((entry for entry in entries if entry.variable.path == "classifier/bias"), None)
    fresh = []
    if bias is not None and checkpoint.num_classes is None:
        fresh = _lacking(tensors, entries)
    elif bias is not None and checkpoint.num_classes != bias.variable.shape[0]:
        fresh = ["classifier"]
    for entry in entries:
        if _owner(entry) in fresh:
            tensors.pop(entry.name, None)
        elif entry.variable.path == "stem/kernel" and entry.name in tensors:
            axis = 1 if checkpoint.layout.torch_axes else 2
            tensors[entry.name] = with_channels(tensors[entry.name], entry.variable.shape[2], axis)
    return tensors, [entry for entry in entries if _owner(entry) not in fresh], fresh


def _lacking(tensors, entries):
    """Return the layers of the head, from one of them to the classifier, of which a checkpoint has nothing."""
    fresh = []
    for layer in reversed(_HEAD):
        names = [entry.name for entry in entries if _owner(entry) == layer]
        if any(name in tensors for name in names):
            break
        fresh += [layer] if names else []
    return fresh[::-1]


def _owner(entry):
    """Return the name of the model's layer that has the variable."""
    return entry.variable.path.partition("/")[0]


def _notify(checkpoint, classes, fresh, left):
    """Say what was not loaded as it is there, a line each."""
    source, theirs = checkpoint.source, checkpoint.num_classes
    if fresh and theirs is not None:
        warn(f"{source} has {theirs} classes: the classifier for {classes} classes is new and must be trained.")
    elif fresh:
        are = "is" if len(fresh) == 1 else "are"
        warn(f"{source} has no classifier: {' and '.join(fresh)} {are} new and must be trained.")
    elif checkpoint.adopted and classes is not None:
        warn(f"{source} has a layer {checkpoint.adopted} behind the body, which was loaded as the classifier.")
    if checkpoint.adopted and classes is None:
        left = [checkpoint.adopted]
    if left:
        warn(f"{source} has more than the network. Left out: {_listed(_layers(left))}.")


def _layers(names):
    """Return the layers of variables called `layer/0`; PyTorch's names as they are."""
    return list(dict.fromkeys(name.rpartition("/")[0] or name for name in names))


def _listed(names):
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def with_channels(kernel, channels, axis):
    """Return a convolution's kernel for another number of input channels, as timm makes it.

    One channel gets the sum over the kernel's own; more get them in turns, scaled so that the output stays as large.
    """
    own = kernel.shape[axis] if kernel.ndim == 4 else channels
    if own == channels:
        return kernel
    if channels == 1:
        return kernel.sum(axis=axis, keepdims=True)
    return np.take(kernel, np.arange(channels) % own, axis=axis) * np.asarray(own / channels, kernel.dtype)


def check_complete(model, entries, layout):
    """Raise a `ValueError` if the layout has no name for one of the model's variables."""
    named = {id(entry.variable) for entry in entries}
    for variable in model.weights:
        if id(variable) not in named:
            raise ArgumentError(
                f"layout={layout.name!r} has no name for {variable.path}: no model in that layout has such a variable."
            )


def _in_our_axes(tensor, entry, torch_axes):
    """Return the tensor as the variable holds it, or None if it can't be that."""
    if not np.issubdtype(tensor.dtype, np.number):
        return None
    shape = tuple(entry.variable.shape)
    if torch_axes and tensor.ndim == 4:
        tensor = tensor.transpose((2, 3, 0, 1) if entry.kind == "depthwise" else (2, 3, 1, 0))
    elif torch_axes and tensor.ndim == 2 and entry.kind != "vector":
        tensor = tensor.T
    if entry.kind in ("convolution", "dense") and tensor.shape != shape:
        # A dense layer and a 1x1 convolution on a pooled map are one thing.
        if tuple(n for n in tensor.shape if n != 1) == tuple(n for n in shape if n != 1) and tensor.ndim != len(shape):
            tensor = tensor.reshape(shape)
    return tensor if tensor.shape == shape else None


def _shape_there(entry, torch_axes):
    """Return the shape that the checkpoint's tensor should have had."""
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


def _does_not_fit(model, checkpoint, missing, left_over, misshapen, not_finite):
    parts = [f"{checkpoint.source} ({checkpoint.layout.name} layout) does not fit {model.name}, which is unchanged."]
    shapes = [f"{name} is {found}, needed {needed}" for name, (found, needed) in misshapen.items()]
    for title, names in (
        ("Missing", missing),
        ("Left over", left_over),
        ("Wrong shape", shapes),
        ("Not finite", not_finite),
    ):
        if names:
            parts.append(f"{title} ({len(names)}): {_listed(names)}.")
    if checkpoint.left:
        parts.append(f"Not of the network: {_listed(_layers(checkpoint.left))}.")
    if checkpoint.num_classes is None and missing and all(checkpoint.layout.head.match(name) for name in missing):
        parts.append(
            "It has no classifier: give it as weights= to a create function, which makes a new one, or load it into "
            "a model with include_top=False."
        )
    parts.append("Check that variant, width, classes and input channels are those of the checkpoint.")
    return CheckpointError(
        "\n".join(parts), missing=missing, left_over=left_over, misshapen=misshapen, not_finite=not_finite
    )
