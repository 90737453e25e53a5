"""A prepared model that computes as its 8-bit file will: to correct biases and to rank layers without writing files."""

import contextlib
import dataclasses

import keras
import numpy as np
from keras import ops as keras_ops

from mobilenet_common import ops
from mobilenet_common.layers import ConvNormActivation
from mobilenet_common.layers.block import Block
from mobilenet_common.nesting import all_layers
from mobilenet_common.ops.layout import channel_axis

_BATCH = 16
_STEPS = 255  # of an activation's scale
_POSITIONS = 4096  # of all images' maps, that a median or a mean is taken over


@dataclasses.dataclass
class Statistics:
    """What a layer's outputs are like, for each channel.

    Attributes:
        largest: Magnitude.
        usual: Mean over the images of the largest magnitude.
        square: Mean of the squares.
    """

    largest: np.ndarray
    usual: np.ndarray
    square: np.ndarray


def kernel_of(layer):
    """Return a layer's kernel in float64."""
    return np.asarray(keras.ops.convert_to_numpy(layer.kernel), "float64")


def convolutions(model):
    """Return the convolutions of a model, wherever they are."""
    return [layer for layer in all_layers(model) if isinstance(layer, ConvNormActivation)]


def rounded(kernel, is_depthwise, levels=127):
    """Return a kernel after rounding to whole numbers up to `levels`, with a scale for each output channel."""
    axes = (0, 1, 3) if is_depthwise else (0, 1, 2)
    scale = np.abs(kernel).max(axes, keepdims=True) / levels
    scale = np.where(scale == 0, 1, scale)
    return np.clip(np.rint(kernel / scale), -levels, levels) * scale


def channel_statistics(model, images):
    """Return `{id of a convolution or block: Statistics}` over all `images`."""
    found = {}

    def note(layer, y):
        axes, share = _other_axes(layer), len(y) / len(images)
        largest = _numbers(keras_ops.max(keras_ops.abs(y), axes[1:]))  # (images, channels)
        square = _numbers(keras_ops.mean(keras_ops.square(y), axes))
        old = found.setdefault(id(layer), Statistics(*(np.zeros_like(square) for _ in range(3))))
        old.largest = np.maximum(old.largest, largest.max(0))
        old.usual, old.square = old.usual + share * largest.mean(0), old.square + share * square
        return y

    with _hooked(lambda layer, x, call: note(layer, call(x)), note):
        _run(model, images)
    return found


class Simulation:
    """Rounding to 8 bits in float arithmetic, as the runtimes round.

    Activations have one scale each, from the mean over the images of their extremes; kernels have one for each output
    channel.

    Args:
        model: As `prepare` made it, for batches of any size.
        images: An array, as the model takes them.
        levels: The largest whole number that a weight becomes.
    """

    def __init__(self, model, images, levels):
        self.model, self.images, self.levels = model, images, levels
        self.ranges: dict[int | None, tuple[float, float]] = {
            None: (min(0.0, float(images.min())), max(0.0, float(images.max())))
        }
        self.outputs: list[np.ndarray] = []
        self._observe()

    def correct_biases(self) -> None:
        """Give every convolution the bias that makes up for what rounding shifts its sums by.

        Rounding shifts sums (Nagel et al., 2019, section 4.2). The mean hangs on a few large values that are clipped,
        and to keep it shifts all others; the median follows a background that fills most of the images. Both are
        tried, and what leaves the smallest error in the outputs is kept, be it no correction at all.
        """
        layers = [layer for layer in convolutions(self.model) if _has_sums(layer)]
        best, least = [_numbers(layer.bias) for layer in layers], self.error()
        before = best
        for center in (np.median, np.mean):
            biases = self._corrected_biases(center)
            _assign_biases(layers, [biases.get(id(layer), bias) for layer, bias in zip(layers, before, strict=True)])
            error = self.error()
            if error < least:
                best, least = [_numbers(layer.bias) for layer in layers], error
            _assign_biases(layers, before)
        _assign_biases(layers, best)

    def _corrected_biases(self, center):
        """Return `{id of a convolution: bias}`, each corrected for what the rounding of all those before it has left.

        The float and the rounded model run side by side.

        Args:
            center: What a channel is shifted by, as a function of all differences and the axis, such as `np.median`.
        """
        count = len(self.images)

        def convolution(layer, x, call):
            kernel = kernel_of(layer)
            exact = _sums(layer, x[:count], call) if _has_sums(layer) else call(x[:count])
            layer.kernel.assign(rounded(kernel, layer.filters is None, self.levels))
            found = _sums(layer, x[count:], call) if _has_sums(layer) else call(x[count:])
            layer.kernel.assign(kernel)
            if _has_sums(layer):
                shift = _shift(exact - found, layer, center)
                biases[id(layer)] = _numbers(layer.bias) + shift.ravel()
                found = found + keras_ops.convert_to_tensor(shift.astype("float32"))
                exact, found = (ops.activate(y, layer.activation, layer.data_format) for y in (exact, found))
            return keras_ops.concatenate([exact, self._rounded(found, id(layer))])

        def block(layer, y):
            return keras_ops.concatenate([y[:count], self._rounded(y[count:], id(layer))])

        biases = {}
        with _hooked(convolution, block):
            images = keras_ops.concatenate([keras_ops.convert_to_tensor(self.images), self._rounded(self.images)])
            self.model(images, training=False)
        return biases

    def ranked(self, names):
        """Return `names` of layers in the order of what is gained if one of them stays in float32, the most first."""
        errors = {name: self.error((name,)) for name in names}
        return sorted(names, key=errors.__getitem__)

    def error(self, float_names=()):
        """Return the mean square of what rounding changes in the outputs, each beside its own mean square."""
        with self._rounding(float_names):
            found = _run(self.model, self.images, self._rounded)
        pairs = zip(found, self.outputs, strict=True)
        return sum(float(((y - expected) ** 2).mean() / max((expected**2).mean(), 1e-30)) for y, expected in pairs)

    def _observe(self):
        with _hooked(lambda layer, x, call: self._note(layer, call(x)), self._note):
            self.outputs = _run(self.model, self.images)

    def _note(self, layer, y):
        """Add a batch's share of the mean extremes."""
        share = 1 / len(self.images)
        low, high = (
            float(_numbers(keras_ops.sum(bound(extreme(y, (1, 2, 3)), 0.0)))) * share
            for bound, extreme in ((keras_ops.minimum, keras_ops.min), (keras_ops.maximum, keras_ops.max))
        )
        before = self.ranges.get(id(layer), (0.0, 0.0))
        self.ranges[id(layer)] = (before[0] + low, before[1] + high)
        return y

    @contextlib.contextmanager
    def _rounding(self, float_names):
        """Let the model round all layers but those of these names, in this scope."""
        kept = {
            id(part) for layer in self.model.layers if layer.name in float_names for part in (layer, *all_layers(layer))
        }

        def block(layer, y):
            return y if id(layer) in kept else self._rounded(y, id(layer))

        exact = [(layer, kernel_of(layer)) for layer in convolutions(self.model) if id(layer) not in kept]
        try:
            for layer, kernel in exact:
                layer.kernel.assign(rounded(kernel, layer.filters is None, self.levels))
            with _hooked(lambda layer, x, call: block(layer, call(x)), block):
                yield
        finally:
            for layer, kernel in exact:
                layer.kernel.assign(kernel)

    def _rounded(self, x, key=None):
        """Return `x` with the values that 8 bits can hold in the range of `key`."""
        low, high = self.ranges[key]
        scale = max((high - low) / _STEPS, 1e-12)
        zero = round(-low / scale)
        x = keras_ops.convert_to_tensor(x)
        return (keras_ops.clip(keras_ops.round(x / scale) + zero, 0, _STEPS) - zero) * scale


def _has_sums(layer):
    """Return whether nothing stands between a convolution's sums and its activation, and its bias can be corrected."""
    return layer.use_bias and layer.normalization is None and not layer.halves


def _sums(layer, x, call):
    """Return what the convolution `layer` gives before its activation."""
    activation, layer.activation = layer.activation, keras.activations.linear
    try:
        return call(x)
    finally:
        layer.activation = activation


def _assign_biases(layers, biases):
    for layer, bias in zip(layers, biases, strict=True):
        layer.bias.assign(bias)


def _shift(differences, layer, center):
    """Return the `center` of each channel, over some thousand positions, as an array to add to them."""
    differences = np.moveaxis(keras.ops.convert_to_numpy(differences), channel_axis(layer.data_format), -1)
    flat = differences.reshape(-1, differences.shape[-1])
    shape = [1] * 4
    shape[channel_axis(layer.data_format)] = -1
    chosen = np.random.default_rng(0).permutation(len(flat))[:_POSITIONS]
    return center(flat[chosen].astype("float64"), axis=0).reshape(shape)


def _other_axes(layer):
    """Return all axes but the channels'."""
    axis = channel_axis(layer.data_format) % 4
    return tuple(i for i in range(4) if i != axis)


def _numbers(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def _run(model, images, change=lambda x: x):
    """Return the model's outputs, as a list of arrays, for `images` after `change`."""
    found = []
    for start in range(0, len(images), _BATCH):
        batch = keras_ops.convert_to_tensor(change(images[start : start + _BATCH]))
        found.append([_numbers(y) for y in keras.tree.flatten(model(batch, training=False))])
    return [np.concatenate(batches) for batches in zip(*found, strict=True)]


@contextlib.contextmanager
def _hooked(convolution, block):
    """Run `convolution(layer, x, call)` for every convolution, `block(layer, y)` after every block, in this scope."""
    kinds = [ConvNormActivation, *(kind for kind in (Block, *_subclasses(Block)) if "call" in vars(kind))]
    plain = {kind: kind.call for kind in kinds}

    def convolve(self, x, training=None):
        return convolution(self, x, lambda x: plain[ConvNormActivation](self, x, training))

    def hooked(kind):
        def run(self, x, training=None):
            y = plain[kind](self, x, training)
            return block(self, y) if type(self).call is run else y  # not where a subclass calls its base's

        return run

    for kind in kinds:
        kind.call = convolve if kind is ConvNormActivation else hooked(kind)
    try:
        yield
    finally:
        for kind, call in plain.items():
            kind.call = call


def _subclasses(kind):
    """Return the subclasses of a class, and theirs."""
    found = kind.__subclasses__()
    return [kind for direct in found for kind in (direct, *_subclasses(direct))]
