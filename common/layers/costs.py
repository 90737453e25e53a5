"""Costs of running a layer: multiply-accumulates, and the activations in memory while it runs."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of one step of a layer, for one image.

    Attributes:
        macs: Number of multiply-accumulates of convolutions and dense products.
        elements: Number of activation elements in memory during the step: its inputs, its outputs, and tensors that
            later steps need.
    """

    macs: int
    elements: int

    def with_held(self, elements):
        """Return the cost of the same step with `elements` more elements in memory, for a later step."""
        return dataclasses.replace(self, elements=self.elements + elements)


def elements(shape):
    """Return the number of elements per image of a tensor with the batched `shape`."""
    return math.prod(shape[1:])


def path_costs(path, shape):
    """Return the costs of running the layers of `path` one after the other, and the output shape."""
    costs = []
    for layer in path:
        costs += layer.costs(shape)
        shape = layer.compute_output_shape(shape)
    return costs, shape


def with_held_elements(costs, held):
    """Return `costs` plus `held` elements that stay in memory for a later step.

    The first cost doesn't change: the first step reads these elements, so its cost already includes them.
    """
    return costs[:1] + [cost.with_held(held) for cost in costs[1:]]
