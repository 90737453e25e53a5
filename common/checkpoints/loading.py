"""Puts a checkpoint's tensors into a model: all of them, or none."""

import dataclasses

import numpy as np

from mobilenet_common.checkpoints.state_dict import StateDict
from mobilenet_common.errors import CheckpointError
from mobilenet_common.nesting import where_inside

_SHOWN = 8


def load_checkpoint(model, source, layout=None):
    """Loads published or converted weights into a model of this library.

    Every variable of the model must get a tensor, and every tensor must have a place; PyTorch's batch counters are
    dropped, and for a model without top the classifier's tensors are not missed. Nothing is assigned before all of it
    has been checked, so after an error the model is as it was. Pickled code is never run.

    Args:
        model: A model that a `create_mobilenet…` function built.
        source: The path of a `.safetensors`, `.pth`, `.bin`, `.h5` or `.keras` file, or a mapping of names to arrays.
        layout: Whose names the tensors have: `"timm"`, `"torchvision"`, `"compact"`, `"keras"` (keras.applications) or
            `"native"` (this library's own files), `"huggingface"` (transformers' V1 and V2, whose class for the
            background is left out where the model has no output for it); None to recognise it.

    Returns:
        The model.

    Raises:
        ValueError: An unknown layout, or one that has no names for this model's blocks.
        CheckpointError: The file can't be read, or tensors are missing, left over, misshapen or not finite; the
            error lists them.
    """
    return load_into(model, StateDict.open(source, layout))


def load_into(model, checkpoint, adapt=False):
    """As `load_checkpoint`, for a `StateDict`.

    With `adapt`, a classifier for another number of classes than the checkpoint's keeps its fresh weights, and a stem
    for other channels than the checkpoint's three gets a kernel made from theirs.
    """
    layout = checkpoint.layout
    if layout.name != "native":
        check_is_mobilenet(model)
    entries = layout.entries(model)
    check_complete(model, entries, layout)
    classes = num_classes(model)
    if classes is not None:
        checkpoint = checkpoint.for_classes(classes)
    tensors = checkpoint.tensors
    if layout.in_order and not any(entry.name in tensors for entry in entries):
        tensors = _in_order(tensors, entries, classes is not None)
        checkpoint = dataclasses.replace(checkpoint, tensors=tensors)
    if adapt:
        tensors, entries = _adapted(checkpoint, entries)
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
    return model


def check_is_mobilenet(model):
    """Raise a `ValueError` if the MobileNet of `model` is a layer of it, where no library's names reach."""
    inside = where_inside(model)
    if inside:
        raise ValueError(
            f"{model.name} is not a MobileNet itself, so no other library has names for its layers.{inside}"
        )


def num_classes(model):
    """Outputs of the model's classifier, or None without one."""
    classifier = next((layer for layer in model.layers if layer.name == "classifier"), None)
    return None if classifier is None else classifier.kernel.shape[-1]


def _in_order(tensors, entries, with_top):
    """The tensors by the names of `entries`, layer by layer in order; as they are if there are not as many layers."""
    theirs = list(dict.fromkeys(name.rpartition("/")[0] for name in tensors))
    ours = list(dict.fromkeys(entry.name.rpartition("/")[0] for entry in entries))
    if len(theirs) < len(ours) or (with_top and len(theirs) > len(ours)):
        return tensors
    names = dict(zip(theirs, ours, strict=False))  # without top, what is left of theirs is the classifier
    parts = {name: name.rpartition("/") for name in tensors}
    return {f"{names[layer]}/{index}": tensors[name] for name, (layer, _, index) in parts.items() if layer in names}


def _adapted(checkpoint, entries):
    """Tensors and entries that fit the model's own classes and channels."""
    tensors = dict(checkpoint.tensors)
    classifier = {entry.variable.path: entry for entry in entries if entry.variable.path.startswith("classifier/")}
    bias = classifier.get("classifier/bias")
    if bias is not None and checkpoint.num_classes not in (None, bias.variable.shape[0]):
        for entry in classifier.values():
            tensors.pop(entry.name, None)
        entries = [entry for entry in entries if entry.variable.path not in classifier]
    for entry in entries:
        if entry.variable.path == "stem/kernel" and entry.name in tensors:
            axis = 1 if checkpoint.layout.torch_axes else 2
            tensors[entry.name] = with_channels(tensors[entry.name], entry.variable.shape[2], axis)
    return tensors, entries


def with_channels(kernel, channels, axis):
    """A convolution's kernel for another number of input channels, as timm makes it.

    One channel gets the sum over the kernel's own; more get them in turns, scaled so that the output stays as large.
    """
    own = kernel.shape[axis] if kernel.ndim == 4 else channels
    if own == channels:
        return kernel
    if channels == 1:
        return kernel.sum(axis=axis, keepdims=True)
    return np.take(kernel, np.arange(channels) % own, axis=axis) * np.asarray(own / channels, kernel.dtype)


def check_complete(model, entries, layout):
    """Raises a `ValueError` if the layout has no name for one of the model's variables."""
    named = {id(entry.variable) for entry in entries}
    for variable in model.weights:
        if id(variable) not in named:
            raise ValueError(
                f"layout={layout.name!r} has no name for {variable.path}: no model in that layout has such a variable."
            )


def _in_our_axes(tensor, entry, torch_axes):
    """The tensor as the variable holds it, or None if it can't be that."""
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
    """The shape that the checkpoint's tensor should have had."""
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
            more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            parts.append(f"{title} ({len(names)}): {', '.join(names[:_SHOWN])}{more}.")
    parts.append("Check that variant, width, classes and input channels are those of the checkpoint.")
    return CheckpointError(
        "\n".join(parts), missing=missing, left_over=left_over, misshapen=misshapen, not_finite=not_finite
    )
