"""What the layouts are made of: units of a model, entries for its variables, and the record that describes a layout."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from mobilenet_common.errors import ArgumentError
from mobilenet_common.layers import ConvNormActivation, LayerScale

BLOCK_NAME = re.compile(r"stage(\d+)_block(\d+)")


@dataclasses.dataclass(frozen=True)
class Unit:
    """A layer of ours that holds variables, and what its two halves are called elsewhere.

    Attributes:
        layer: A `ConvNormActivation`, `NormActivation`, `LayerScale` or Keras `Dense`.
        convolution: Name of the part with kernel and bias; for a `LayerScale` the name of the factors.
        normalization: Name of the part with scale, shift and statistics.
    """

    layer: Any
    convolution: str | None = None
    normalization: str | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """One variable of a model and the name of its tensor in a checkpoint.

    `kind` is `"convolution"`, `"depthwise"`, `"dense"` or `"vector"`, which says how its axes are ordered elsewhere.
    """

    variable: Any
    name: str
    kind: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """The naming of one library.

    Attributes:
        name: What users call it.
        entries: Function of a model that lists its `Entry`s.
        recognizes: Function of a checkpoint's names that tells whether they are this library's.
        head: Pattern of names that belong to pool and classifier, which a model without top does not need.
        classifier: Pattern of the name of the classifier's bias.
        dropped: Pattern of names that hold nothing to load.
        torch_axes: Whether kernels are (out, in, rows, columns) and dense ones (out, in).
        spelled: Function of the tensors that gives them the names which `entries` uses.
        flat: Pattern of the kernels that are dense ones there and 1×1 convolutions here.
        normalization: Of that library's models.
        in_order: Whether files with other names for the layers, but the same layers in the same order, are loaded too.
        background: Whether classifiers have a class for the background, before all others.
        split: Function of the tensors that gives those which the library's own models have, and the others.
        classifier_of: Function of a body's tensors that gives the classifier's name, and the number of features that go
            into it; None where the body doesn't end in them.
    """

    name: str
    entries: Callable[..., Any]
    recognizes: Callable[..., Any]
    head: re.Pattern
    classifier: re.Pattern
    dropped: re.Pattern = re.compile(r"(?!)")
    torch_axes: bool = False
    spelled: Callable[..., Any] = dict
    flat: re.Pattern = re.compile(r"(?!)")
    normalization: str = "batch"
    in_order: bool = False
    background: bool = False
    split: Callable[..., Any] = lambda tensors: (tensors, {})
    classifier_of: Callable[..., Any] = lambda tensors: None


TORCH_SUFFIXES = {
    "kernel": ".weight",
    "bias": ".bias",
    "gamma": ".weight",
    "beta": ".bias",
    "moving_mean": ".running_mean",
    "moving_variance": ".running_var",
}
KERAS_SUFFIXES = {
    "kernel": "/0",
    "bias": "/1",
    "gamma": "/0",
    "beta": "/1",
    "moving_mean": "/2",
    "moving_variance": "/3",
}
TORCH_COUNTERS = re.compile(r"(^|\.)num_batches_tracked$")
_IN_CONVOLUTION = ("kernel", "bias")
_IN_NORMALIZATION = ("gamma", "beta", "moving_mean", "moving_variance")


def blocks(model):
    """Return `(stage, block, layer)` of the model's blocks, counted from 1, in the order in which they run."""
    found = []
    for layer in model.layers:
        match = BLOCK_NAME.fullmatch(layer.name)
        if match:
            found.append((int(match[1]), int(match[2]), layer))
    return sorted(found, key=lambda block: block[:2])


def part(model, name) -> Any:
    """Return the model's layer called `name`, or None."""
    return next((layer for layer in model.layers if layer.name == name), None)


def units_of(pairs):
    """Return `Unit`s for those `(layer, convolution, normalization)` whose layer is there."""
    return [Unit(*pair) for pair in pairs if pair[0] is not None]


def entries_of(units, suffixes):
    """Return the entries of a model, made from its `Unit`s and the endings of the variables' names."""

    def entries(model):
        found = []
        for unit in units(model):
            if isinstance(unit.layer, LayerScale):
                found.append(Entry(unit.layer.gamma, unit.convolution, "vector"))
                continue
            for part_name, variables in ((unit.convolution, _IN_CONVOLUTION), (unit.normalization, _IN_NORMALIZATION)):
                for name in variables:
                    variable = getattr(unit.layer, name, None)
                    if variable is not None:
                        kind = _kernel_kind(unit.layer) if name == "kernel" else "vector"
                        found.append(Entry(variable, f"{part_name}{suffixes[name]}", kind))
        return found

    return entries


def _kernel_kind(layer):
    if not isinstance(layer, ConvNormActivation):
        return "dense"
    return "depthwise" if layer.filters is None else "convolution"


def ends_in_convolution(model):
    """Return whether the stages end in a convolution of their own, as V3's do; V2 has it in the head."""
    layers = [layer for _, _, layer in blocks(model)]
    return bool(layers) and isinstance(layers[-1], ConvNormActivation)


def unnamed(layer, layout):
    """Return the error for a block that no model in `layout` has."""
    return ArgumentError(
        f"layout={layout!r} has no name for {layer.name}, a {type(layer).__name__}: no model in that layout has one."
    )


def any_matches(pattern):
    """Return a function of names that tells whether one of them starts with `pattern`."""
    regex = re.compile(pattern)
    return lambda names: any(regex.match(name) for name in names)
