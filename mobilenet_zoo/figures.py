"""What every model costs, counted once and kept as a table, so that a list of models need not build them."""

import functools
from pathlib import Path
from typing import NamedTuple

FILE = "figures.tsv"
HEADER = ("name", "size", "parameters", "macs")


class Figures(NamedTuple):
    """What a model costs on one image of a size.

    Attributes:
        parameters: Numbers that training changes.
        macs: Multiply-accumulates; see `ProfileRow`.
    """

    parameters: int
    macs: int


@functools.cache
def table():
    """Return `{(name, size): Figures}` of every architecture at 224 pixels and of published weights at their sizes."""
    text = Path(__file__).with_name(FILE).read_text("utf-8")
    _, *rows = (line.split("\t") for line in text.splitlines())
    return {(name, int(size)): Figures(int(parameters), int(macs)) for name, size, parameters, macs in rows}


def counted(names, sizes_of):
    """Yield the rows of the table, counted anew.

    Args:
        names: Of models.
        sizes_of: Function of a name that gives `{full name: (number of classes, sizes)}` of what has this architecture.
    """
    from mobilenet_zoo.profiling import profile
    from mobilenet_zoo.registry import create_model

    for name in names:
        model = create_model(name, input_shape=(None, None, 3))
        features, classes = model.get_layer("classifier").kernel.shape
        for full_name, (own_classes, sizes) in sizes_of(name).items():
            for size in sizes:
                found = profile(model, (size, size, 3))
                more = own_classes - classes
                yield full_name, size, found.parameters + more * (features + 1), found.macs + more * features
