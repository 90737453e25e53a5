"""Cross-layer equalization: the channels of an activation, which share one scale of 8 bits, get ranges that suit it."""

import dataclasses
from typing import Any

import keras
import numpy as np

from mobilenet_common.layers import ConvNormActivation
from mobilenet_common.layers.block import Block
from mobilenet_zoo.exporting.simulation import channel_statistics, kernel_of

_LARGEST = 64.0  # factor of a channel
_HEADROOM = 1.3  # of a ReLU6's channel above its largest value seen, as other images have larger ones
_CEILING = 6.0  # of a ReLU6
_SHARES = np.linspace(0, 1, 11)
_STEPS = 255  # of an activation's scale
_LINEAR, _RELU, _RELU6 = keras.activations.linear, keras.activations.relu, keras.activations.relu6


@dataclasses.dataclass(frozen=True)
class Tie:
    """Convolutions between which a factor for each channel can move without changing what the model computes.

    Attributes:
        producers: Convolutions whose outputs the channels are.
        consumers: Convolutions that read them.
        tensors: Layers whose outputs have these channels and are rounded: the producers, and blocks with a shortcut.
    """

    producers: tuple
    consumers: tuple
    tensors: tuple

    @property
    def is_capped(self) -> bool:
        """Whether a ReLU6 keeps the channels below 6."""
        return any(producer.activation is _RELU6 for producer in self.producers)


def equalize(model: keras.Model, images: Any, levels: int) -> None:
    """Move factors between the convolutions of a prepared model, so that rounding to 8 bits adds little noise.

    Nagel et al., 2019 (section 4.1) equalize pairs of layers. Here all blocks that a shortcut ties together count as
    one, ranges are those that activations have on `images`, and the factors are those with the least expected noise:
    a wider channel loses less by the rounding of activations and makes the rounding of the next kernel coarser. A
    ReLU6 limits a factor to what leaves the channel below 6, so that the function stays as it was on `images`.

    Args:
        model: As `prepare` made it, for batches of any size.
        images: An array, as the model takes them.
        levels: The largest whole number that a weight becomes.
    """
    statistics = channel_statistics(model, images)
    for tie in (*_pairs(model), *_streams(model)):
        if all(id(layer) in statistics for layer in tie.tensors):
            _apply(tie, _factors(tie, [statistics[id(layer)] for layer in tie.tensors], levels))


def _is_scalable(layer):
    """Return whether the channels that a layer gives can be scaled by its own weights."""
    return (
        isinstance(layer, ConvNormActivation)
        and layer.use_bias
        and layer.normalization is None
        and not layer.halves
        and layer.activation in (_LINEAR, _RELU, _RELU6)
    )


def _steps(layer):
    """Return the layers inside a block of which each runs after the other, or nothing."""
    return layer._steps() if isinstance(layer, Block) and type(layer)._steps is not Block._steps else []


def _pairs(model):
    """Yield ties of two convolutions in a row inside the blocks."""
    for layer in model.layers:
        steps = _steps(layer)
        for first, second in zip(steps, steps[1:], strict=False):
            if _is_scalable(first) and isinstance(second, ConvNormActivation):
                yield Tie((first,), (second,), (first,))


def _streams(model):
    """Yield ties of the convolutions that write to and read from the same map between blocks."""
    parents = {}

    def root(tensor):
        while parents.setdefault(tensor, tensor) != tensor:
            tensor = parents[tensor]
        return tensor

    ends = []  # (tensor, role, layers)
    for layer in model.layers:
        inputs, outputs = ([id(t) for t in keras.tree.flatten(tensors)] for tensors in (layer.input, layer.output))
        steps = _steps(layer) if isinstance(layer, Block) else [layer]
        reads = bool(steps) and isinstance(steps[0], ConvNormActivation) and len(inputs) == 1
        writes = bool(steps) and _is_scalable(steps[-1]) and len(outputs) == 1
        is_block = isinstance(layer, Block)
        if is_block and not (reads and writes and steps[-1].activation is _LINEAR):
            reads = writes = False
        if isinstance(layer, keras.layers.InputLayer):
            inputs = []
        ends += [(tensor, "consumers", (steps[0],)) if reads else (tensor, "fixed", ()) for tensor in inputs]
        tensors = (steps[-1], layer) if is_block and writes else (layer,)
        ends += [(tensor, "producers", tensors) if writes else (tensor, "fixed", ()) for tensor in outputs]
        if is_block and reads and writes and layer.adds_shortcut:
            parents[root(inputs[0])] = root(outputs[0])
    ends += [(id(tensor), "fixed", ()) for tensor in model.outputs]
    groups = {}
    for tensor, role, layers in ends:
        groups.setdefault(root(tensor), {}).setdefault(role, []).append(layers)
    for group in groups.values():
        if "fixed" not in group and {"producers", "consumers"} <= group.keys():
            producers, consumers = group["producers"], group["consumers"]
            tensors = tuple(layer for layers in producers for layer in layers)
            yield Tie(tuple(layers[0] for layers in producers), tuple(layers[0] for layers in consumers), tensors)


def _factors(tie, statistics, levels):
    """Return the factor of each channel with the least expected noise."""
    ranges = np.max([statistic.usual / max(statistic.usual.max(), 1e-12) for statistic in statistics], 0)
    ranges = ranges * np.mean([statistic.usual.max() for statistic in statistics])
    largest = np.max([statistic.largest for statistic in statistics], 0)
    squares = np.mean([statistic.square for statistic in statistics], 0)
    wide = np.maximum(ranges, 1e-6 * max(ranges.max(), 1e-6))
    weights = _weights(tie.consumers)
    candidates = []
    for share in [0.0] if weights is None else _SHARES:
        factors = wide ** (share - 1)
        if weights is not None:
            factors = factors * weights**share
        if tie.is_capped:
            most = np.clip(_CEILING / np.maximum(_HEADROOM * largest, 1e-12), 1, _LARGEST)
            factors = np.clip(factors / factors.min(), 1, most)
        else:
            factors = np.clip(factors / np.exp(np.log(factors).mean()), 1 / _LARGEST, _LARGEST)
        factors = np.where(ranges > 0, factors, 1.0)
        top = (ranges * factors).max()
        candidates.append((_noise(tie.consumers, factors, top, squares, levels), share, factors))
    return min(candidates, key=lambda candidate: candidate[:2])[2]


def _weights(consumers):
    """Return how large each channel's weights are beside the largest of their output's, or None if that is no matter.

    A depthwise kernel has a scale for every channel.
    """
    found = None
    for layer in consumers:
        if layer.filters is not None:
            kernel = np.abs(kernel_of(layer))
            largest = kernel.max((0, 1, 2))
            size = np.sqrt(((kernel / np.where(largest > 0, largest, 1)) ** 2).mean((0, 1, 3)))
            size = np.maximum(size / max(size.max(), 1e-12), 1e-6)
            found = size if found is None else np.maximum(found, size)
    return found


def _noise(consumers, factors, top, squares, levels):
    """Return the variance, up to a constant, that rounding adds to the sums of the consumers."""
    noise = 0.0
    for layer in consumers:
        if layer.filters is not None:
            kernel = kernel_of(layer) / factors[:, None]
            steps = np.abs(kernel).max((0, 1, 2)) / levels
            noise += (top / _STEPS) ** 2 * (kernel**2).sum()
            noise += (steps**2).sum() * kernel.shape[0] * kernel.shape[1] * (squares * factors**2).sum()
    return noise


def _apply(tie, factors):
    for layer in tie.producers:
        layer.kernel.assign(kernel_of(layer) * (factors[:, None] if layer.filters is None else factors))
        layer.bias.assign(np.asarray(keras.ops.convert_to_numpy(layer.bias), "float64") * factors)
    for layer in tie.consumers:
        layer.kernel.assign(kernel_of(layer) / factors[:, None])
