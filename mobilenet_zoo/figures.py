"""A table with the cost of every model, so that models can be listed without building them."""

import functools
from pathlib import Path
from typing import NamedTuple

FILE = "figures.tsv"
HEADER = ("name", "size", "parameters", "macs")


class Figures(NamedTuple):
    """Cost of a model for one image.

    Attributes:
        parameters: Number of parameters, without the moving statistics of batch norm.
        macs: Number of multiply-accumulates; see `ProfileRow`.
    """

    parameters: int
    macs: int


@functools.cache
def table():
    """Return `{(name, size): Figures}` for all architectures at 224 pixels and all published weights at their sizes."""
    text = Path(__file__).with_name(FILE).read_text("utf-8")
    _, *rows = (line.split("\t") for line in text.splitlines())
    return {(name, int(size)): Figures(int(parameters), int(macs)) for name, size, parameters, macs in rows}


def counted(names, sizes_of):
    """Yield the rows of the table, computed from newly built models.

    Args:
        names: Names of architectures, as in `list_models`.
        sizes_of: Function that takes the name of an architecture and returns `{full name: (number of classes, sizes)}`
            for the architecture itself and its published weights.

    Yields:
        Tuples `(full name, size, parameters, macs)`.
    """
    from mobilenet_zoo.profiling import profile
    from mobilenet_zoo.registry import create_model

    for name in names:
        model = create_model(name, input_shape=(None, None, 3))
        features, built_classes = model.get_layer("classifier").kernel.shape
        for full_name, (num_classes, sizes) in sizes_of(name).items():
            # Each class adds one column of the kernel and one bias, so one model serves all numbers of classes.
            extra = num_classes - built_classes
            for size in sizes:
                costs = profile(model, (size, size, 3))
                yield full_name, size, costs.parameters + extra * (features + 1), costs.macs + extra * features
