"""Simulation of 8-bit rounding in a prepared model, to correct biases and to rank layers without writing files."""

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

_BATCH_SIZE = 16
_STEPS = 255  # number of steps that an 8-bit activation divides its range into
_MAX_POSITIONS = 4096  # number of positions, over all images, from which a median or a mean is computed


@dataclasses.dataclass
class Statistics:
    """Statistics of a layer's outputs for each channel, as arrays `(channels,)`.

    Attributes:
        largest: Largest magnitude over all images.
        usual: Mean over the images of the largest magnitude in each image.
        square: Mean square.
    """

    largest: np.ndarray
    usual: np.ndarray
    square: np.ndarray


def kernel_of(layer):
    """Return a layer's kernel as a float64 array."""
    return np.asarray(keras.ops.convert_to_numpy(layer.kernel), "float64")


def convolutions(model):
    """Return all convolutions of a model, including those inside blocks and nested models."""
    return [layer for layer in all_layers(model) if isinstance(layer, ConvNormActivation)]


def rounded(kernel, is_depthwise, levels=127):
    """Return a kernel rounded to integers in `-levels..levels` times a scale for each output channel."""
    axes = (0, 1, 3) if is_depthwise else (0, 1, 2)
    scale = np.abs(kernel).max(axes, keepdims=True) / levels
    scale = np.where(scale == 0, 1, scale)
    return np.clip(np.rint(kernel / scale), -levels, levels) * scale


def channel_statistics(model, images):
    """Return `{id of the layer: Statistics}` for all convolutions and blocks, over all `images`."""
    statistics = {}

    def update(layer, y):
        axes, fraction = _non_channel_axes(layer), len(y) / len(images)
        largest = _to_float64(keras_ops.max(keras_ops.abs(y), axes[1:]))  # (images, channels)
        square = _to_float64(keras_ops.mean(keras_ops.square(y), axes))
        total = statistics.setdefault(id(layer), Statistics(*(np.zeros_like(square) for _ in range(3))))
        total.largest = np.maximum(total.largest, largest.max(0))
        total.usual, total.square = total.usual + fraction * largest.mean(0), total.square + fraction * square
        return y

    with _hooked(lambda layer, x, call: update(layer, call(x)), update):
        _run(model, images)
    return statistics


class Simulation:
    """Simulation of the runtimes' 8-bit rounding in float arithmetic.

    Each activation has a single scale, computed from its extremes in each image, averaged over the images. Each kernel
    has a scale for every output channel.

    Args:
        model: Model from `prepare` that takes batches of any size.
        images: Array of images in the model's data format and value range.
        levels: Largest integer that weights are rounded to.
    """

    def __init__(self, model, images, levels):
        self.model, self.images, self.levels = model, images, levels
        self.ranges: dict[int | None, tuple[float, float]] = {
            None: (min(0.0, float(images.min())), max(0.0, float(images.max())))
        }
        self.outputs: list[np.ndarray] = []
        self._observe()

    def correct_biases(self) -> None:
        """Correct the bias of every convolution for the shift that rounding causes in its sums.

        The sums of a convolution are its outputs before the activation; see Nagel et al., 2019, section 4.2. The shift
        is estimated by the mean or the median of the differences between exact and rounded sums. The mean depends on a
        few large values that are clipped, and correcting it shifts all other values; the median is determined by a
        background that fills most of the image. Both are tried, and the biases with the smallest output error are kept,
        which can be the original ones.
        """
        layers = [layer for layer in convolutions(self.model) if _can_correct_bias(layer)]
        best, least_error = [_to_float64(layer.bias) for layer in layers], self.error()
        original = best
        for center in (np.median, np.mean):
            biases = self._corrected_biases(center)
            _assign_biases(layers, [biases.get(id(layer), bias) for layer, bias in zip(layers, original, strict=True)])
            error = self.error()
            if error < least_error:
                best, least_error = [_to_float64(layer.bias) for layer in layers], error
            _assign_biases(layers, original)
        _assign_biases(layers, best)

    def _corrected_biases(self, center):
        """Return `{id of the convolution: corrected bias}`.

        The float model and the rounded model run in one batch, the rounded one with the biases corrected so far. Each
        bias is therefore corrected for the error that remains from all preceding layers.

        Args:
            center: Function that computes the shift of each channel from the differences, such as `np.median`.
        """
        count = len(self.images)

        def convolution(layer, x, call):
            kernel = kernel_of(layer)
            exact = _sums(layer, x[:count], call) if _can_correct_bias(layer) else call(x[:count])
            layer.kernel.assign(rounded(kernel, layer.filters is None, self.levels))
            y = _sums(layer, x[count:], call) if _can_correct_bias(layer) else call(x[count:])
            layer.kernel.assign(kernel)
            if _can_correct_bias(layer):
                shift = _shift(exact - y, layer, center)
                biases[id(layer)] = _to_float64(layer.bias) + shift.ravel()
                y = y + keras_ops.convert_to_tensor(shift.astype("float32"))
                exact, y = (ops.activate(sums, layer.activation, layer.data_format) for sums in (exact, y))
            return keras_ops.concatenate([exact, self._rounded(y, id(layer))])

        def block(layer, y):
            return keras_ops.concatenate([y[:count], self._rounded(y[count:], id(layer))])

        biases = {}
        with _hooked(convolution, block):
            images = keras_ops.concatenate([keras_ops.convert_to_tensor(self.images), self._rounded(self.images)])
            self.model(images, training=False)
        return biases

    def ranked(self, names):
        """Return the layer names sorted by the accuracy gained if only that layer stays in float32.

        The largest gain comes first.
        """
        errors = {name: self.error((name,)) for name in names}
        return sorted(names, key=errors.__getitem__)

    def error(self, float_names=()):
        """Return the mean square error of the rounded model relative to the mean square, summed over the outputs."""
        with self._rounding(float_names):
            outputs = _run(self.model, self.images, self._rounded)
        pairs = zip(outputs, self.outputs, strict=True)
        return sum(float(((y - expected) ** 2).mean() / max((expected**2).mean(), 1e-30)) for y, expected in pairs)

    def _observe(self):
        """Run the float model, and record its outputs and the range of every activation."""
        with _hooked(lambda layer, x, call: self._update_range(layer, call(x)), self._update_range):
            self.outputs = _run(self.model, self.images)

    def _update_range(self, layer, y):
        """Add the contribution of a batch to the mean extremes of a layer, and return the batch."""
        weight = 1 / len(self.images)
        low, high = (
            float(_to_float64(keras_ops.sum(bound(extreme(y, (1, 2, 3)), 0.0)))) * weight
            for bound, extreme in ((keras_ops.minimum, keras_ops.min), (keras_ops.maximum, keras_ops.max))
        )
        before = self.ranges.get(id(layer), (0.0, 0.0))
        self.ranges[id(layer)] = (before[0] + low, before[1] + high)
        return y

    @contextlib.contextmanager
    def _rounding(self, float_names):
        """Round weights and outputs of all layers in this scope, except the layers named in `float_names`."""
        excluded = {
            id(part) for layer in self.model.layers if layer.name in float_names for part in (layer, *all_layers(layer))
        }

        def block(layer, y):
            return y if id(layer) in excluded else self._rounded(y, id(layer))

        exact = [(layer, kernel_of(layer)) for layer in convolutions(self.model) if id(layer) not in excluded]
        try:
            for layer, kernel in exact:
                layer.kernel.assign(rounded(kernel, layer.filters is None, self.levels))
            with _hooked(lambda layer, x, call: block(layer, call(x)), block):
                yield
        finally:
            for layer, kernel in exact:
                layer.kernel.assign(kernel)

    def _rounded(self, x, key=None):
        """Return `x` rounded to 8 bits in the range of the layer with id `key`; None stands for the images."""
        low, high = self.ranges[key]
        scale = max((high - low) / _STEPS, 1e-12)
        zero = round(-low / scale)
        x = keras_ops.convert_to_tensor(x)
        return (keras_ops.clip(keras_ops.round(x / scale) + zero, 0, _STEPS) - zero) * scale


def _can_correct_bias(layer):
    """Return whether a convolution has a bias that can be corrected: nothing but the activation follows it."""
    return layer.use_bias and layer.normalization is None and not layer.halves


def _sums(layer, x, call):
    """Return the outputs of a convolution before its activation."""
    activation, layer.activation = layer.activation, keras.activations.linear
    try:
        return call(x)
    finally:
        layer.activation = activation


def _assign_biases(layers, biases):
    for layer, bias in zip(layers, biases, strict=True):
        layer.bias.assign(bias)


def _shift(differences, layer, center):
    """Return the `center` of the differences in each channel, in a shape that broadcasts to the differences."""
    differences = np.moveaxis(keras.ops.convert_to_numpy(differences), channel_axis(layer.data_format), -1)
    flat = differences.reshape(-1, differences.shape[-1])
    shape = [1] * 4
    shape[channel_axis(layer.data_format)] = -1
    sample = np.random.default_rng(0).permutation(len(flat))[:_MAX_POSITIONS]
    return center(flat[sample].astype("float64"), axis=0).reshape(shape)


def _non_channel_axes(layer):
    """Return all axes of a layer's output except the channel axis."""
    axis = channel_axis(layer.data_format) % 4
    return tuple(i for i in range(4) if i != axis)


def _to_float64(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def _run(model, images, transform=lambda x: x):
    """Return the model's outputs for the transformed `images`, as a list of arrays."""
    outputs = []
    for start in range(0, len(images), _BATCH_SIZE):
        batch = keras_ops.convert_to_tensor(transform(images[start : start + _BATCH_SIZE]))
        outputs.append([_to_float64(y) for y in keras.tree.flatten(model(batch, training=False))])
    return [np.concatenate(batches) for batches in zip(*outputs, strict=True)]


@contextlib.contextmanager
def _hooked(convolution, block):
    """Replace the calls of convolutions and blocks in this scope.

    Args:
        convolution: Function `(layer, x, call)` that is called in place of every convolution and returns its output.
            `call(x)` runs the original convolution.
        block: Function `(layer, y)` that is called with the output of every block and returns the output to use.
    """
    classes = [ConvNormActivation, *(cls for cls in (Block, *_subclasses(Block)) if "call" in vars(cls))]
    original_calls = {cls: cls.call for cls in classes}

    def convolve(self, x, training=None):
        return convolution(self, x, lambda x: original_calls[ConvNormActivation](self, x, training))

    def hooked(cls):
        def run(self, x, training=None):
            y = original_calls[cls](self, x, training)
            # When a subclass calls the method of its base class, call `block` only once.
            return block(self, y) if type(self).call is run else y

        return run

    for cls in classes:
        cls.call = convolve if cls is ConvNormActivation else hooked(cls)
    try:
        yield
    finally:
        for cls, call in original_calls.items():
            cls.call = call


def _subclasses(cls):
    """Return all direct and indirect subclasses of a class."""
    return [descendant for child in cls.__subclasses__() for descendant in (child, *_subclasses(child))]
