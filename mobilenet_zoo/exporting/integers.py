"""What a model needs so that 8-bit integers cost it little: equal ranges, and biases that make up for rounding."""

import contextlib

import keras
import numpy as np

from mobilenet_common.layers import ConvNormActivation
from mobilenet_common.layers.block import Block
from mobilenet_common.nesting import all_layers
from mobilenet_common.ops.layout import channel_axis

_PICTURES = 64  # enough for means and ranges
_MOST = 16.0  # that a channel is scaled by


def improve(model, pictures, levels=127):
    """Changes the weights of a prepared model so that it computes the same in float and nearly the same in integers.

    Cross-layer equalisation (Nagel et al., 2019, section 4.1), here of the ranges that activations have on `pictures`:
    between two convolutions with nothing but a ReLU between them, a factor for each channel moves from one to the
    other. Then bias correction (section 4.2): rounding a kernel shifts its outputs' means, by the rounding's share
    of the inputs' means, which the bias takes back.

    Args:
        model: As `prepare` made it, for batches of any size.
        pictures: An array, as the model takes them.
        levels: The largest whole number that a weight becomes.
    """
    seen = _observe(model, pictures[:_PICTURES])
    for first, second in _pairs(model):
        _equalise(first, second, seen[id(first)])
    seen = _observe(model, pictures[:_PICTURES])
    for layer in _convolutions(model):
        if layer.use_bias and id(layer) in seen:
            _correct_bias(layer, seen[id(layer)]["input_mean"], levels)


def rounded(kernel, is_depthwise, levels=127):
    """A kernel after rounding to whole numbers up to `levels`, with a scale for each output channel."""
    axes = (0, 1, 3) if is_depthwise else (0, 1, 2)
    scale = np.abs(kernel).max(axes, keepdims=True) / levels
    scale = np.where(scale == 0, 1, scale)
    return np.clip(np.rint(kernel / scale), -levels, levels) * scale


def _pairs(model):
    """Two convolutions with nothing between them but a ReLU or nothing at all, inside the blocks."""
    for layer in all_layers(model):
        steps = layer._steps() if isinstance(layer, Block) and type(layer)._steps is not Block._steps else []
        for first, second in zip(steps, steps[1:], strict=False):
            if isinstance(first, ConvNormActivation) and isinstance(second, ConvNormActivation):
                if first.activation in (keras.activations.relu, keras.activations.linear) and not first.halves:
                    yield first, second


def _equalise(first, second, seen):
    """Moves a factor for each channel from `second` to `first`, so that their ranges use all 8 bits."""
    if not first.use_bias or first.normalization is not None:
        return
    ranges = seen["output_range"]
    kernel = np.asarray(keras.ops.convert_to_numpy(second.kernel), "float64")
    if second.filters is None:  # depthwise: every channel has a scale of its own in the kernels of both
        wanted = np.full_like(ranges, ranges.max())
    else:
        # What is hard to round, in the activations or in the kernel, is shared out between the two.
        wanted = np.sqrt(ranges * np.abs(kernel).max((0, 1, 3)))
        wanted *= ranges.max() / max(wanted.max(), 1e-12)
    factors = np.where(ranges > 0, np.clip(wanted / np.maximum(ranges, 1e-12), 1 / _MOST, _MOST), 1.0)
    own = np.asarray(keras.ops.convert_to_numpy(first.kernel), "float64")
    own *= factors[:, None] if first.filters is None else factors
    first.kernel.assign(own)
    first.bias.assign(np.asarray(keras.ops.convert_to_numpy(first.bias), "float64") * factors)
    second.kernel.assign(kernel / factors[:, None])


def _correct_bias(layer, means, levels):
    kernel = np.asarray(keras.ops.convert_to_numpy(layer.kernel), "float64")
    error = (rounded(kernel, layer.filters is None, levels) - kernel).sum((0, 1))
    shift = error[:, 0] * means if layer.filters is None else means @ error
    layer.bias.assign(np.asarray(keras.ops.convert_to_numpy(layer.bias), "float64") - shift)


def _convolutions(model):
    for layer in all_layers(model):
        if isinstance(layer, ConvNormActivation):
            yield layer


def _observe(model, pictures, batch_size=16):
    """`{id of a convolution: {"input_mean": ..., "output_range": ...}}`, for each channel, over all `pictures`."""
    seen = {}

    def note(layer, x, y):
        axis = channel_axis(layer.data_format)
        axes = tuple(i for i in range(4) if i != axis % 4)
        mean = keras.ops.convert_to_numpy(keras.ops.mean(x, axes)).astype("float64") * x.shape[0]
        top = keras.ops.convert_to_numpy(keras.ops.max(keras.ops.abs(y), axes)).astype("float64")
        old = seen.setdefault(id(layer), {"input_mean": 0.0, "output_range": 0.0})
        old["input_mean"] = old["input_mean"] + mean / len(pictures)
        old["output_range"] = np.maximum(old["output_range"], top)

    with _noting(note):
        for start in range(0, len(pictures), batch_size):
            model(keras.ops.convert_to_tensor(pictures[start : start + batch_size]), training=False)
    return seen


@contextlib.contextmanager
def _noting(note):
    """Within, `note(layer, input, output)` is called for every convolution."""
    plain = ConvNormActivation.call

    def call(self, x, training=None):
        y = plain(self, x, training)
        note(self, x, y)
        return y

    ConvNormActivation.call = call
    try:
        yield
    finally:
        ConvNormActivation.call = plain
