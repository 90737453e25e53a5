"""What a model costs: parameters, multiply-accumulates and activation memory, block by block."""

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
    """One layer of the model, which is one block of the architecture.

    Attributes:
        name: The layer's name, such as `stage3_block2`.
        kind: Its class.
        output_shape: Of one image, without the batch.
        parameters: Numbers that training changes; the moving statistics of batch norm are not among them.
        statistics: Numbers of the moving statistics.
        macs: Multiply-accumulates of convolutions and dense layers for one image. Attention products and
            anti-aliasing filters are left out, as in published tables.
        peak_activation_bytes: Of all tensors alive at once while the layer runs on one image.
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
    """The rows of a model and their sums; `print` it for a table."""

    model: str
    input_shape: tuple
    rows: tuple[ProfileRow, ...]

    @property
    def parameters(self) -> int:
        """Numbers that training changes."""
        return sum(row.parameters for row in self.rows)

    @property
    def statistics(self) -> int:
        """Numbers of batch norm's moving statistics."""
        return sum(row.statistics for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return sum(row.macs for row in self.rows)

    @property
    def peak_activation_bytes(self) -> int:
        """The most memory that activations take at once, if each is freed after its last reader."""
        return max((row.peak_activation_bytes for row in self.rows), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Return the profile as plain dicts, lists, strings and integers."""
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
    """Count what `model` costs on one image.

    Args:
        model: A functional or `Sequential` model with layers of this library, or with models of it as layers: their
            rows are called after both, such as `backbone/stage1_block1`. Keras's own `Conv2D`, `DepthwiseConv2D` and
            `Dense` are counted too.
        input_shape: Without the batch; needed where the model leaves height or width free, and allowed only there or
            where it says the same.

    Returns:
        A `Profile`. What is called twice has two rows, of which the second brings no parameters.

    Raises:
        ValueError: No input shape is known, the given one doesn't fit the model, or the model, or one inside it, has
            no graph.

    Warns:
        MobileNetWarning: There are layers of other kinds with kernels, whose multiply-accumulates are not counted.
    """
    model = as_functional(model, "profile")
    shape = _input_shape(model, input_shape)
    rows = _rows(model, [(1, *shape)], [False], "", 0, set(), uncounted := [])
    if uncounted:
        warn(
            f"profile counts no multiply-accumulates for {', '.join(uncounted)}: it knows the layers of this library "
            "and Keras's Conv2D, DepthwiseConv2D and Dense."
        )
    return Profile(model.name, shape, tuple(rows))


def _rows(model, input_shapes, held, prefix, outside, counted, uncounted):
    """Return the rows of a functional model, those of models within it in their place.

    Args:
        model: The model.
        input_shapes: With a batch of 1.
        held: Whether each input is read again when the model has run.
        prefix: Of the names, where the model is a layer of another.
        outside: Numbers that are alive all the time, which others still need.
        counted: Ids of the variables that have been counted, which a second call doesn't bring again.
        uncounted: Gets the names of layers whose multiply-accumulates are not known.
    """
    steps = calls(model)
    last_reader = {id(tensor): i for i, (_, inputs, _) in enumerate(steps) for tensor in inputs}
    kept = {id(tensor) for tensor in model.outputs}
    kept |= {id(tensor) for tensor, lives in zip(model.inputs, held, strict=True) if lives}
    shapes = {id(tensor): tuple(shape) for tensor, shape in zip(model.inputs, input_shapes, strict=True)}
    rows, alive = [], dict.fromkeys(shapes)
    for i, (layer, inputs, outputs) in enumerate(steps):
        read = [id(tensor) for tensor in inputs]
        given = [shapes[tensor] for tensor in read]
        written = _written(layer, inputs, given, outputs)
        beside = outside + sum(elements(shapes[tensor]) for tensor in alive if tensor not in read)
        if isinstance(layer, keras.Model):
            inner = as_functional(layer, "profile")
            lives = [last_reader[tensor] > i or tensor in kept for tensor in read]
            rows += _rows(inner, given, lives, f"{prefix}{layer.name}/", beside, counted, uncounted)
        else:
            rows.append(_row(layer, prefix, given, written, beside, counted, uncounted))
        for tensor, shape in zip(outputs, written, strict=True):
            shapes[id(tensor)] = tuple(shape)
            alive[id(tensor)] = None
        for tensor in list(alive):
            if last_reader.get(tensor, -1) <= i and tensor not in kept:
                del alive[tensor]
    return rows


def _written(layer, inputs, given, outputs):
    """Return the shapes of what a layer writes, for inputs of the shapes `given`."""
    if not isinstance(layer, keras.layers.Layer):  # a function of keras.ops
        stand_ins = {id(x): keras.KerasTensor(shape, x.dtype) for x, shape in zip(inputs, given, strict=True)}
        found = layer.compute_output_spec(*stand_ins.values())
        return [tuple(x.shape) for x in keras.tree.flatten(found)]
    written = layer.compute_output_shape(given[0] if len(given) == 1 else given)
    if len(outputs) == 1 and not isinstance(written, dict):
        return [tuple(written)] if not isinstance(written[0], (tuple, list)) else [tuple(written[0])]
    values = written.values() if isinstance(written, dict) else written
    return [tuple(shape) for shape in values]


def _row(layer, prefix, given, written, beside, counted, uncounted):
    is_layer = isinstance(layer, keras.layers.Layer)
    costs = _costs(layer, given, written) if is_layer else None
    if costs is None:
        if is_layer and any(len(variable.shape) > 1 for variable in layer.weights):
            uncounted.append(f"{prefix}{layer.name} ({type(layer).__name__})")
        costs = [Cost(0, sum(map(elements, given)) + sum(map(elements, written)))]
    bytes_each = keras.ops.convert_to_numpy(keras.ops.zeros((1,), getattr(layer, "compute_dtype", None))).itemsize
    sizes = {True: 0, False: 0}
    for variable in layer.weights if is_layer else ():
        if id(variable) not in counted:
            counted.add(id(variable))
            sizes[variable.name.startswith("moving_")] += math.prod(variable.shape)
    return ProfileRow(
        name=prefix + layer.name,
        kind=type(layer).__name__,
        output_shape=tuple(written[0][1:]),
        parameters=sizes[False],
        statistics=sizes[True],
        macs=sum(cost.macs for cost in costs),
        peak_activation_bytes=(max(cost.elements for cost in costs) + beside) * bytes_each,
    )


def _costs(layer, given, written):
    """Return the `Cost`s of a layer, or None where it isn't known what it multiplies."""
    if hasattr(layer, "costs"):
        return layer.costs(given[0])
    macs = 0
    kernel: Any = getattr(layer, "kernel", None)
    if isinstance(layer, keras.layers.Dense):
        macs = elements(written[0]) * kernel.shape[0]
    elif isinstance(layer, keras.layers.DepthwiseConv2D):
        macs = elements(written[0]) * math.prod(kernel.shape[:2])
    elif isinstance(layer, keras.layers.Conv2D):
        macs = elements(written[0]) * math.prod(kernel.shape[:3])
    elif layer.weights:
        return None
    return [Cost(macs, sum(map(elements, given)) + sum(map(elements, written)))]


def _input_shape(model, input_shape):
    if len(model.inputs) != 1:
        raise ArgumentError(f"{model.name} has {len(model.inputs)} inputs: profile takes models with one.")
    own = tuple(model.inputs[0].shape[1:])
    if input_shape is None:
        if None in own:
            raise ArgumentError(f"{model.name} takes images of {own}: pass profile an input_shape without None.")
        return own
    given = tuple(map(plain_value, input_shape))
    fits = len(given) == len(own) and all(
        is_integer(n) and n > 0 and (m is None or m == n) for n, m in zip(given, own, strict=True)
    )
    if not fits:
        raise ArgumentError(f"input_shape={input_shape!r} does not fit {model.name}, which takes {own}.")
    return given
