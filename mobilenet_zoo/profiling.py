"""The cost of a model: parameters, multiply-accumulates and activation memory of every block."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras

from mobilenet_common.errors import ArgumentError, is_integer, plain_value
from mobilenet_common.layers.costs import Cost, elements
from mobilenet_common.nesting import as_functional, calls
from mobilenet_common.notices import warn


@dataclasses.dataclass(frozen=True)
class ProfileRow:
    """Cost of one layer of a model. A block of the architecture is one layer.

    Attributes:
        name: Name of the layer, such as `stage3_block2`.
        kind: Class name of the layer.
        output_shape: Shape of the layer's output, without the batch dimension.
        parameters: Number of parameters, without the moving statistics of batch norm.
        statistics: Number of values in the moving statistics.
        macs: Multiply-accumulates of convolutions and dense layers for one image. As in published tables, neither the
            matrix products of attention nor anti-aliasing filters are counted.
        peak_activation_bytes: Largest total size in bytes of the tensors that are in memory at the same time while the
            layer runs on one image.
    """

    name: str
    kind: str
    output_shape: tuple
    parameters: int
    statistics: int
    macs: int
    peak_activation_bytes: int


@dataclasses.dataclass(frozen=True)
class Profile:
    """Cost of a model, by layer and in total; `print` it to see a table.

    Attributes:
        model: Name of the model.
        input_shape: Shape of one image, without the batch dimension.
        rows: Cost of every layer, in the order of execution.
    """

    model: str
    input_shape: tuple
    rows: tuple[ProfileRow, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters, without the moving statistics of batch norm."""
        return sum(row.parameters for row in self.rows)

    @property
    def statistics(self) -> int:
        """Number of values in the moving statistics of batch norm."""
        return sum(row.statistics for row in self.rows)

    @property
    def macs(self) -> int:
        """Number of multiply-accumulates for one image."""
        return sum(row.macs for row in self.rows)

    @property
    def peak_activation_bytes(self) -> int:
        """Largest memory that activations need at once, if every tensor is freed after the last layer that reads it."""
        return max((row.peak_activation_bytes for row in self.rows), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Return the profile as a dict of lists, strings and integers."""
        return {
            "model": self.model,
            "input_shape": list(self.input_shape),
            "parameters": self.parameters,
            "statistics": self.statistics,
            "macs": self.macs,
            "peak_activation_bytes": self.peak_activation_bytes,
            "rows": [{**dataclasses.asdict(row), "output_shape": list(row.output_shape)} for row in self.rows],
        }

    def __str__(self):
        header = ("layer", "kind", "output", "parameters", "MACs", "peak memory")
        lines = [
            (
                row.name,
                row.kind,
                "×".join(map(str, row.output_shape)),
                f"{row.parameters:,}",
                f"{row.macs:,}",
                f"{row.peak_activation_bytes / 2**20:.2f} MiB",
            )
            for row in self.rows
        ]
        total = f"{self.peak_activation_bytes / 2**20:.2f} MiB"
        lines.append(("total", "", "", f"{self.parameters:,}", f"{self.macs:,}", total))
        widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
        title = f"{self.model} at {'×'.join(map(str, self.input_shape))}"
        table = [
            "  ".join(
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in (header, *lines)
        ]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([title, table[0], rule, *table[1:-1], rule, table[-1]])


def profile(model: keras.Model, input_shape: Sequence[int] | None = None) -> Profile:
    """Return the cost of a model for one image.

    Args:
        model: A functional or `Sequential` model that contains layers of this library. Rows of nested models are named
            after both the model and the layer, such as `backbone/stage1_block1`. Keras's own `Conv2D`,
            `DepthwiseConv2D` and `Dense` layers are counted too.
        input_shape: Shape of one image, without the batch dimension. It is required if the model doesn't fix height or
            width; otherwise it must equal the model's input shape.

    Returns:
        A `Profile`. A layer that is called twice has two rows; the second row has no parameters.

    Raises:
        ValueError: The input shape is unknown or doesn't fit the model, or the model or a nested model is neither
            functional nor a built `Sequential`.

    Warns:
        MobileNetWarning: The model contains other layers with kernels, whose multiply-accumulates are not counted.
    """
    model = as_functional(model, "profile")
    shape = _input_shape(model, input_shape)
    rows = _rows(model, [(1, *shape)], [False], "", 0, set(), uncounted := [])
    if uncounted:
        warn(
            f"profile doesn't count the multiply-accumulates of {', '.join(uncounted)}: it supports only the layers of "
            "this library and Keras's Conv2D, DepthwiseConv2D and Dense."
        )
    return Profile(model.name, shape, tuple(rows))


def _rows(model, input_shapes, inputs_kept, prefix, outer_elements, counted, uncounted):
    """Return the rows of a functional model, including those of nested models, in the order of execution.

    Args:
        model: A functional model.
        input_shapes: Shapes of the inputs, with a batch of 1.
        inputs_kept: For every input, whether it is read again after the model has run.
        prefix: Prefix of the row names, for nested models.
        outer_elements: Number of elements outside the model that stay in memory while it runs.
        counted: Ids of the variables that are already counted; this function adds to the set.
        uncounted: List to which the names of layers with unknown multiply-accumulates are added.
    """
    steps = calls(model)
    last_reader = {id(tensor): i for i, (_, inputs, _) in enumerate(steps) for tensor in inputs}
    kept = {id(tensor) for tensor in model.outputs}
    kept |= {id(tensor) for tensor, is_kept in zip(model.inputs, inputs_kept, strict=True) if is_kept}
    shapes = {id(tensor): tuple(shape) for tensor, shape in zip(model.inputs, input_shapes, strict=True)}
    rows, alive = [], dict.fromkeys(shapes)
    for i, (layer, inputs, outputs) in enumerate(steps):
        read = [id(tensor) for tensor in inputs]
        read_shapes = [shapes[tensor] for tensor in read]
        written_shapes = _output_shapes(layer, inputs, read_shapes, outputs)
        other_elements = outer_elements + sum(elements(shapes[tensor]) for tensor in alive if tensor not in read)
        if isinstance(layer, keras.Model):
            inner = as_functional(layer, "profile")
            inner_inputs_kept = [last_reader[tensor] > i or tensor in kept for tensor in read]
            rows += _rows(
                inner, read_shapes, inner_inputs_kept, f"{prefix}{layer.name}/", other_elements, counted, uncounted
            )
        else:
            rows.append(_row(layer, prefix, read_shapes, written_shapes, other_elements, counted, uncounted))
        for tensor, shape in zip(outputs, written_shapes, strict=True):
            shapes[id(tensor)] = tuple(shape)
            alive[id(tensor)] = None
        for tensor in list(alive):
            if last_reader.get(tensor, -1) <= i and tensor not in kept:
                del alive[tensor]
    return rows


def _output_shapes(layer, inputs, input_shapes, outputs):
    """Return the shapes of the outputs of a layer for inputs of the shapes `input_shapes`."""
    if not isinstance(layer, keras.layers.Layer):  # A function of keras.ops has no compute_output_shape.
        specs = {id(x): keras.KerasTensor(shape, x.dtype) for x, shape in zip(inputs, input_shapes, strict=True)}
        output_specs = layer.compute_output_spec(*specs.values())
        return [tuple(x.shape) for x in keras.tree.flatten(output_specs)]
    shapes = layer.compute_output_shape(input_shapes[0] if len(input_shapes) == 1 else input_shapes)
    if len(outputs) == 1 and not isinstance(shapes, dict):
        return [tuple(shapes)] if not isinstance(shapes[0], (tuple, list)) else [tuple(shapes[0])]
    values = shapes.values() if isinstance(shapes, dict) else shapes
    return [tuple(shape) for shape in values]


def _row(layer, prefix, input_shapes, output_shapes, other_elements, counted, uncounted):
    is_layer = isinstance(layer, keras.layers.Layer)
    costs = _costs(layer, input_shapes, output_shapes) if is_layer else None
    if costs is None:
        if is_layer and any(len(variable.shape) > 1 for variable in layer.weights):
            uncounted.append(f"{prefix}{layer.name} ({type(layer).__name__})")
        costs = [Cost(0, sum(map(elements, input_shapes)) + sum(map(elements, output_shapes)))]
    element_size = keras.ops.convert_to_numpy(keras.ops.zeros((1,), getattr(layer, "compute_dtype", None))).itemsize
    sizes = {True: 0, False: 0}  # by whether the variables are moving statistics
    for variable in layer.weights if is_layer else ():
        if id(variable) not in counted:
            counted.add(id(variable))
            sizes[variable.name.startswith("moving_")] += math.prod(variable.shape)
    return ProfileRow(
        name=prefix + layer.name,
        kind=type(layer).__name__,
        output_shape=tuple(output_shapes[0][1:]),
        parameters=sizes[False],
        statistics=sizes[True],
        macs=sum(cost.macs for cost in costs),
        peak_activation_bytes=(max(cost.elements for cost in costs) + other_elements) * element_size,
    )


def _costs(layer, input_shapes, output_shapes):
    """Return the `Cost`s of a layer, or None if its multiply-accumulates are unknown."""
    if hasattr(layer, "costs"):
        return layer.costs(input_shapes[0])
    macs = 0
    kernel: Any = getattr(layer, "kernel", None)
    if isinstance(layer, keras.layers.Dense):
        macs = elements(output_shapes[0]) * kernel.shape[0]
    elif isinstance(layer, keras.layers.DepthwiseConv2D):
        macs = elements(output_shapes[0]) * math.prod(kernel.shape[:2])
    elif isinstance(layer, keras.layers.Conv2D):
        macs = elements(output_shapes[0]) * math.prod(kernel.shape[:3])
    elif layer.weights:
        return None
    return [Cost(macs, sum(map(elements, input_shapes)) + sum(map(elements, output_shapes)))]


def _input_shape(model, input_shape):
    if len(model.inputs) != 1:
        raise ArgumentError(f"{model.name} has {len(model.inputs)} inputs: profile needs a model with one input.")
    expected = tuple(model.inputs[0].shape[1:])
    if input_shape is None:
        if None in expected:
            raise ArgumentError(
                f"input_shape is required: {model.name} takes images of shape {expected}. Pass a shape without None."
            )
        return expected
    shape = tuple(map(plain_value, input_shape))
    fits = len(shape) == len(expected) and all(
        is_integer(n) and n > 0 and (m is None or m == n) for n, m in zip(shape, expected, strict=True)
    )
    if not fits:
        raise ArgumentError(
            f"input_shape={input_shape!r} does not fit {model.name}, which takes images of shape {expected}."
        )
    return shape
