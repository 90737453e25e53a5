"""What a layer costs to run: multiply-accumulates, and the tensors that are alive while it runs."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Cost:
    """One step of a layer.

    Attributes:
        macs: Multiply-accumulates of its convolutions and dense products, for one image.
        elements: Numbers held in activations while it runs: what it reads, what it writes, and what others still need.
    """

    macs: int
    elements: int

    def holding(self, elements):
        """Return the same step while `elements` more numbers are kept for a later one."""
        return dataclasses.replace(self, elements=self.elements + elements)


def elements(shape):
    """Return numbers in one image's tensor of a batched `shape`."""
    return math.prod(shape[1:])


def along(path, shape):
    """Return the costs of running the layers of `path` one after the other, and the shape that comes out."""
    costs = []
    for layer in path:
        costs += layer.costs(shape)
        shape = layer.compute_output_shape(shape)
    return costs, shape


def beside(costs, kept):
    """Return `costs` while `kept` elements stay alive for a later step; the first step reads them itself."""
    return costs[:1] + [cost.holding(kept) for cost in costs[1:]]
