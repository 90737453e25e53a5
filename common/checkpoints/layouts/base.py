"""Building blocks of the layouts: units of a model, entries for its variables, and the description of a layout."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from mobilenet_common.errors import ArgumentError
from mobilenet_common.layers import ConvNormActivation, LayerScale

BLOCK_NAME = re.compile(r"stage(\d+)_block(\d+)")


@dataclasses.dataclass(frozen=True)
class Unit:
    """A layer with variables, and the names of its convolution and normalization in another library.

    Attributes:
        layer: A `ConvNormActivation`, `NormActivation`, `LayerScale` or Keras `Dense` layer.
        convolution: Name of the module with kernel and bias; for a `LayerScale`, the name of its factors.
        normalization: Name of the module with scale, offset and statistics.
    """

    layer: Any
    convolution: str | None = None
    normalization: str | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """A variable of a model and the name of its tensor in a checkpoint.

    Attributes:
        variable: The Keras variable.
        name: Name of the tensor.
        kind: `"convolution"`, `"depthwise"`, `"dense"` or `"vector"`, which determines the order of the axes in the
            checkpoint.
    """

    variable: Any
    name: str
    kind: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names and conventions of one library's checkpoints.

    Attributes:
        name: Name of the layout in arguments.
        entries: Function that returns the list of a model's `Entry` objects.
        recognizes: Function that returns whether a checkpoint's tensor names belong to this layout.
        head: Pattern of the names of the head, which a model without top doesn't need.
        classifier: Pattern of the name of the classifier's bias.
        dropped: Pattern of the names of tensors that are ignored.
        torch_axes: Whether convolution kernels are `(out, in, rows, columns)` and dense kernels `(out, in)`.
        rename: Function that takes the tensors and returns them with the names that `entries` uses.
        flat: Pattern of the kernels that are dense in this layout and 1×1 convolutions in this library.
        normalization: Normalization of the library's models, a value of `choices.NORMALIZATIONS`.
        in_order: Whether files with other layer names are loaded too, if they have the same layers in the same order.
        background: Whether the first class of the classifiers is the background.
        split: Function that takes the tensors and returns `(tensors of the library's models, other tensors)`.
        classifier_of: Function that takes a body's tensors and returns `(name of the classifier, number of its input
            features)`. The number, or the whole result, is None if it is unknown.
    """

    name: str
    entries: Callable[..., Any]
    recognizes: Callable[..., Any]
    head: re.Pattern
    classifier: re.Pattern
    dropped: re.Pattern = re.compile(r"(?!)")
    torch_axes: bool = False
    rename: Callable[..., Any] = dict
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
    """Return the `(stage, block, layer)` of each block in a model, counted from 1, in execution order."""
    result = []
    for layer in model.layers:
        match = BLOCK_NAME.fullmatch(layer.name)
        if match:
            result.append((int(match[1]), int(match[2]), layer))
    return sorted(result, key=lambda block: block[:2])


def part(model, name) -> Any:
    """Return the model's layer called `name`, or None."""
    return next((layer for layer in model.layers if layer.name == name), None)


def units_of(pairs):
    """Return a `Unit` for each tuple `(layer, convolution, normalization)` whose layer is not None."""
    return [Unit(*pair) for pair in pairs if pair[0] is not None]


def entries_of(units, suffixes):
    """Return a function that lists the entries of a model.

    Args:
        units: Function that returns the list of a model's `Unit` objects.
        suffixes: `{name of a variable: suffix of its tensor's name}`.
    """

    def entries(model):
        result = []
        for unit in units(model):
            if isinstance(unit.layer, LayerScale):
                result.append(Entry(unit.layer.gamma, unit.convolution, "vector"))
                continue
            for part_name, variables in ((unit.convolution, _IN_CONVOLUTION), (unit.normalization, _IN_NORMALIZATION)):
                for name in variables:
                    variable = getattr(unit.layer, name, None)
                    if variable is not None:
                        kind = _kernel_kind(unit.layer) if name == "kernel" else "vector"
                        result.append(Entry(variable, f"{part_name}{suffixes[name]}", kind))
        return result

    return entries


def _kernel_kind(layer):
    if not isinstance(layer, ConvNormActivation):
        return "dense"
    return "depthwise" if layer.filters is None else "convolution"


def ends_in_convolution(model):
    """Return whether the last stage ends with a convolution, as in V3; in V2 this convolution is part of the head."""
    layers = [layer for _, _, layer in blocks(model)]
    return bool(layers) and isinstance(layers[-1], ConvNormActivation)


def unnamed(layer, layout):
    """Return the error for a block that no model of a layout has."""
    return ArgumentError(
        f"layout={layout!r} has no name for {layer.name}: no model in that layout has a {type(layer).__name__}."
    )


def any_matches(pattern):
    """Return a function that takes names and returns whether any of them starts with `pattern`."""
    regex = re.compile(pattern)
    return lambda names: any(regex.match(name) for name in names)
