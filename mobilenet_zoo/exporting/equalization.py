"""Cross-layer equalization: balance the ranges of an activation's channels, which have a common 8-bit scale."""

import dataclasses
from typing import Any

import keras
import numpy as np

from mobilenet_common.layers import ConvNormActivation
from mobilenet_common.layers.block import Block
from mobilenet_zoo.exporting.simulation import channel_statistics, kernel_of

_MAX_FACTOR = 64.0  # largest factor of a channel
_HEADROOM = 1.3  # margin above a ReLU6 channel's largest value, since other images can have larger values
_RELU6_LIMIT = 6.0
_EXPONENTS = np.linspace(0, 1, 11)
_STEPS = 255  # number of steps that an 8-bit activation divides its range into
_LINEAR, _RELU, _RELU6 = keras.activations.linear, keras.activations.relu, keras.activations.relu6


@dataclasses.dataclass(frozen=True)
class Tie:
    """Convolutions that write and read the same channels.

    A factor per channel can be moved from the producers to the consumers without changing the function of the model.

    Attributes:
        producers: Convolutions that write the channels.
        consumers: Convolutions that read the channels.
        tensors: Layers whose outputs have these channels and are rounded: the producers, and blocks with a shortcut.
    """

    producers: tuple
    consumers: tuple
    tensors: tuple

    @property
    def is_capped(self) -> bool:
        """Whether a ReLU6 clips the channels at 6."""
        return any(producer.activation is _RELU6 for producer in self.producers)


def equalize(model: keras.Model, images: Any, levels: int) -> None:
    """Move factors between the convolutions of a prepared model, so that rounding to 8 bits adds less noise.

    Nagel et al., 2019 (section 4.1) equalize pairs of layers. This function differs in three ways. It treats all blocks
    that are connected by shortcuts as one layer. It measures the ranges of activations on `images`. And it chooses the
    factors with the least expected noise: a wider channel loses less when activations are rounded, but makes the
    rounding of the next kernel coarser. If a ReLU6 follows, a factor may not push the channel above 6, so the function
    of the model stays the same on `images`.

    Args:
        model: Model from `prepare` that takes batches of any size. Its weights are changed.
        images: Array of images in the model's data format and value range.
        levels: Largest integer that weights are rounded to.
    """
    statistics = channel_statistics(model, images)
    for tie in (*_pairs(model), *_streams(model)):
        if all(id(layer) in statistics for layer in tie.tensors):
            _apply(tie, _factors(tie, [statistics[id(layer)] for layer in tie.tensors], levels))


def _is_scalable(layer):
    """Return whether scaling a layer's kernel and bias scales its output channels."""
    return (
        isinstance(layer, ConvNormActivation)
        and layer.use_bias
        and layer.normalization is None
        and not layer.halves
        and layer.activation in (_LINEAR, _RELU, _RELU6)
    )


def _sublayers(layer):
    """Return the layers that a block runs one after the other, or an empty list if it doesn't run them in sequence."""
    return layer._steps() if isinstance(layer, Block) and type(layer)._steps is not Block._steps else []


def _pairs(model):
    """Yield a `Tie` for every two consecutive convolutions inside a block."""
    for layer in model.layers:
        sublayers = _sublayers(layer)
        for first, second in zip(sublayers, sublayers[1:], strict=False):
            if _is_scalable(first) and isinstance(second, ConvNormActivation):
                yield Tie((first,), (second,), (first,))


def _streams(model):
    """Yield a `Tie` of the convolutions that write and read the same feature map between blocks."""
    parents = {}

    def root(tensor):
        while parents.setdefault(tensor, tensor) != tensor:
            tensor = parents[tensor]
        return tensor

    ends = []  # (tensor, role, layers); the channels of a tensor with the role "fixed" can't be scaled
    for layer in model.layers:
        inputs, outputs = ([id(t) for t in keras.tree.flatten(tensors)] for tensors in (layer.input, layer.output))
        sublayers = _sublayers(layer) if isinstance(layer, Block) else [layer]
        reads = bool(sublayers) and isinstance(sublayers[0], ConvNormActivation) and len(inputs) == 1
        writes = bool(sublayers) and _is_scalable(sublayers[-1]) and len(outputs) == 1
        is_block = isinstance(layer, Block)
        if is_block and not (reads and writes and sublayers[-1].activation is _LINEAR):
            reads = writes = False
        if isinstance(layer, keras.layers.InputLayer):
            inputs = []
        ends += [(tensor, "consumers", (sublayers[0],)) if reads else (tensor, "fixed", ()) for tensor in inputs]
        tensors = (sublayers[-1], layer) if is_block and writes else (layer,)
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
    """Return the factors, one per channel, with the least expected noise."""
    ranges = np.max([statistic.usual / max(statistic.usual.max(), 1e-12) for statistic in statistics], 0)
    ranges = ranges * np.mean([statistic.usual.max() for statistic in statistics])
    largest = np.max([statistic.largest for statistic in statistics], 0)
    squares = np.mean([statistic.square for statistic in statistics], 0)
    positive_ranges = np.maximum(ranges, 1e-6 * max(ranges.max(), 1e-6))
    weights = _weight_sizes(tie.consumers)
    candidates = []
    for exponent in [0.0] if weights is None else _EXPONENTS:
        factors = positive_ranges ** (exponent - 1)
        if weights is not None:
            factors = factors * weights**exponent
        if tie.is_capped:
            max_factors = np.clip(_RELU6_LIMIT / np.maximum(_HEADROOM * largest, 1e-12), 1, _MAX_FACTOR)
            factors = np.clip(factors / factors.min(), 1, max_factors)
        else:
            factors = np.clip(factors / np.exp(np.log(factors).mean()), 1 / _MAX_FACTOR, _MAX_FACTOR)
        factors = np.where(ranges > 0, factors, 1.0)
        widest = (ranges * factors).max()
        candidates.append((_noise(tie.consumers, factors, widest, squares, levels), exponent, factors))
    return min(candidates, key=lambda candidate: candidate[:2])[2]


def _weight_sizes(consumers):
    """Return the size of each input channel's weights, relative to the largest weight of each output channel.

    Returns:
        An array `(channels,)` scaled to a maximum of 1, or None if all consumers are depthwise convolutions. A
        depthwise kernel has a scale for every channel, so the size of its weights has no effect on the rounding.
    """
    sizes = None
    for layer in consumers:
        if layer.filters is not None:
            kernel = np.abs(kernel_of(layer))
            largest = kernel.max((0, 1, 2))
            size = np.sqrt(((kernel / np.where(largest > 0, largest, 1)) ** 2).mean((0, 1, 3)))
            size = np.maximum(size / max(size.max(), 1e-12), 1e-6)
            sizes = size if sizes is None else np.maximum(sizes, size)
    return sizes


def _noise(consumers, factors, widest, squares, levels):
    """Return the variance that rounding adds to the sums of the consumers, up to a constant factor."""
    noise = 0.0
    for layer in consumers:
        if layer.filters is not None:
            kernel = kernel_of(layer) / factors[:, None]
            step_sizes = np.abs(kernel).max((0, 1, 2)) / levels
            noise += (widest / _STEPS) ** 2 * (kernel**2).sum()
            noise += (step_sizes**2).sum() * kernel.shape[0] * kernel.shape[1] * (squares * factors**2).sum()
    return noise


def _apply(tie, factors):
    for layer in tie.producers:
        layer.kernel.assign(kernel_of(layer) * (factors[:, None] if layer.filters is None else factors))
        layer.bias.assign(np.asarray(keras.ops.convert_to_numpy(layer.bias), "float64") * factors)
    for layer in tie.consumers:
        layer.kernel.assign(kernel_of(layer) / factors[:, None])
