"""What a model costs: parameters, multiply-accumulates and activation memory, block by block."""

import dataclasses
import math

import keras

from mobilenet_common.layers.costs import Cost, elements


@dataclasses.dataclass(frozen=True)
class ProfileRow:
    """One layer of the model, which is one block of the architecture.

    Attributes:
        name: The layer's name, such as `stage3_block2`.
        kind: Its class.
        output_shape: Of one picture, without the batch.
        parameters: Numbers that training changes; the moving statistics of batch norm are not among them.
        statistics: Numbers of the moving statistics.
        macs: Multiply-accumulates of convolutions and dense layers for one picture. Attention products and
            anti-aliasing filters are left out, as in published tables.
        peak_activation_bytes: Of all tensors alive at once while the layer runs on one picture.
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
    def parameters(self):
        """Numbers that training changes."""
        return sum(row.parameters for row in self.rows)

    @property
    def statistics(self):
        """Numbers of batch norm's moving statistics."""
        return sum(row.statistics for row in self.rows)

    @property
    def macs(self):
        """Multiply-accumulates for one picture."""
        return sum(row.macs for row in self.rows)

    @property
    def peak_activation_bytes(self):
        """The most memory that activations take at once, if each is freed after its last reader."""
        return max((row.peak_activation_bytes for row in self.rows), default=0)

    def as_dict(self):
        """The profile as plain dicts, lists, strings and integers."""
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


def profile(model, input_shape=None):
    """Counts what `model` costs on one picture.

    Args:
        model: A functional model of this library. Keras's own convolution and dense layers are counted too.
        input_shape: Without the batch; needed where the model leaves height or width free, and allowed only there or
            where it says the same.

    Returns:
        A `Profile`.

    Raises:
        ValueError: No input shape is known, or the given one doesn't fit the model.
    """
    shapes = {id(model.inputs[0]): (1, *_input_shape(model, input_shape))}
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    last_reader = {}
    for i, layer in enumerate(layers):
        for tensor in keras.tree.flatten(layer.input):
            last_reader[id(tensor)] = i
    kept = {id(tensor) for tensor in keras.tree.flatten(model.outputs)}
    rows, alive = [], dict.fromkeys(shapes)
    for i, layer in enumerate(layers):
        read = [id(tensor) for tensor in keras.tree.flatten(layer.input)]
        given = [shapes[tensor] for tensor in read]
        written = layer.compute_output_shape(given[0] if len(given) == 1 else given)
        shapes[id(layer.output)] = tuple(written)
        beside = sum(elements(shapes[tensor]) for tensor in alive if tensor not in read)
        rows.append(_row(layer, given[0], written, beside))
        alive[id(layer.output)] = None
        for tensor in list(alive):
            if last_reader.get(tensor, -1) <= i and tensor not in kept:
                del alive[tensor]
    return Profile(model.name, tuple(shapes[id(model.inputs[0])][1:]), tuple(rows))


def _row(layer, given, written, beside):
    costs = _costs(layer, given, written)
    bytes_each = keras.ops.convert_to_numpy(keras.ops.zeros((1,), layer.compute_dtype)).itemsize
    sizes = {True: 0, False: 0}
    for variable in layer.weights:
        sizes[variable.name.startswith("moving_")] += math.prod(variable.shape)
    return ProfileRow(
        name=layer.name,
        kind=type(layer).__name__,
        output_shape=tuple(written[1:]),
        parameters=sizes[False],
        statistics=sizes[True],
        macs=sum(cost.macs for cost in costs),
        peak_activation_bytes=(max(cost.elements for cost in costs) + beside) * bytes_each,
    )


def _costs(layer, given, written):
    if hasattr(layer, "costs"):
        return layer.costs(given)
    macs = 0
    kernel = getattr(layer, "kernel", None)
    if isinstance(layer, keras.layers.Dense):
        macs = elements(written) * kernel.shape[0]
    elif isinstance(layer, keras.layers.DepthwiseConv2D):
        macs = elements(written) * math.prod(kernel.shape[:2])
    elif isinstance(layer, keras.layers.Conv2D):
        macs = elements(written) * math.prod(kernel.shape[:3])
    return [Cost(macs, elements(given) + elements(written))]


def _input_shape(model, input_shape):
    if len(model.inputs) != 1:
        raise ValueError(f"{model.name} has {len(model.inputs)} inputs: profile takes models with one.")
    own = tuple(model.inputs[0].shape[1:])
    if input_shape is None:
        if None in own:
            raise ValueError(f"{model.name} takes pictures of {own}: pass profile an input_shape without None.")
        return own
    given = tuple(input_shape)
    fits = len(given) == len(own) and all(
        isinstance(n, int) and n > 0 and (m is None or m == n) for n, m in zip(given, own, strict=True)
    )
    if not fits:
        raise ValueError(f"input_shape={input_shape!r} does not fit {model.name}, which takes {own}.")
    return given
