"""What goes into a model: the shape of its images, and the Keras tensor it starts from."""

import keras
import numpy as np

from mobilenet_common.catalog import HALF
from mobilenet_common.errors import ArgumentError, integer, pair, plain_value
from mobilenet_common.layers.resizing import Resize
from mobilenet_common.nesting import all_layers


def resolve_input_shape(
    input_shape, input_tensor, data_format, architecture, default_size: int | None = 224, any_size=False
):
    """Return the checked shape of one input, without the batch; `default_size` pixels a side if none is given.

    With `any_size` it may be smaller than what the architecture needs.

    Raises:
        ValueError: Wrong rank, too few pixels, channels missing or on the wrong side, or not what `input_tensor` has.
    """
    expected = "(height, width, channels)" if data_format == "channels_last" else "(channels, height, width)"
    if input_tensor is not None:
        shape = _tensor_shape(input_tensor, expected)
        if input_shape is not None and tuple(input_shape) != shape:
            raise ArgumentError(
                f"input_shape={input_shape!r} is not the shape of input_tensor, {shape}: leave input_shape out."
            )
        input_shape = shape
    if input_shape is None:
        if architecture.stem is None:
            raise ArgumentError(
                f"input_shape=None is not enough for an architecture without a stem: give the feature map's "
                f"{expected}; height and width may be None."
            )
        size = (default_size, default_size)
        input_shape = (*size, 3) if data_format == "channels_last" else (3, *size)
    try:
        shape = tuple(input_shape)
    except TypeError:
        shape = ()
    if len(shape) != 3:
        raise ArgumentError(f"input_shape={input_shape!r} is not allowed: it must be {expected}, without the batch.")
    *size, channels = shape if data_format == "channels_last" else (*shape[1:], shape[0])
    if channels is None:
        raise ArgumentError(f"input_shape={input_shape!r} leaves the channels open: {expected} must name them.")
    for name, value in (("channels", channels), *zip(("height", "width"), size, strict=True)):
        if value is not None:
            integer(f"input_shape {name}", value, 1)
    minimum = 1 if any_size else _minimum(architecture)
    small = [value for value in size if value is not None and value < minimum]
    if small:
        raise ArgumentError(
            f"input_shape={input_shape!r} is not allowed: height and width must be at least {minimum} pixels."
            + _wrong_side(shape, data_format, minimum)
        )
    return tuple(value if value is None else int(value) for value in shape)


def image_input(input_shape, input_tensor, dtype):
    """Return `(inputs, x)`: what the model's inputs are, and the Keras tensor to build on."""
    if input_tensor is None:
        x = keras.Input(input_shape, dtype=_input_dtype(dtype), name="image")
        return x, x
    return _sources(input_tensor), input_tensor


def resize_target(include_preprocessing, architecture):
    """Return height and width that `include_preprocessing` asks for, or None for a flag.

    Raises:
        ValueError: It is neither a flag nor a size that the architecture takes.
    """
    if isinstance(plain_value(include_preprocessing), bool):
        return None
    minimum = _minimum(architecture)
    try:
        return pair("include_preprocessing", include_preprocessing, minimum)
    except ArgumentError:
        raise ArgumentError(
            f"include_preprocessing={include_preprocessing!r} is not allowed: it must be True or False, or a size to "
            f"resize to, such as 224 or (192, 256), of at least {minimum} pixels a side."
        ) from None


def resize(x, size: tuple[int, int], facts, data_format, dtype):
    """Resize images of any size to `size`, by the interpolation in the `Facts` of the weights, or bilinearly."""
    interpolation = facts.interpolation if facts else "bilinear"
    return Resize(*size, interpolation, name="resizing", dtype=dtype, data_format=data_format)(x)


def preprocess(x, facts, data_format, dtype):
    """Normalize pixels in 0..255 as the `Facts` of the weights say; without any, to -1..1."""
    axis = -1 if data_format == "channels_last" else 1
    mean, std = (facts.mean, facts.std) if facts else HALF
    mean, std = (255.0 * np.array(for_channels(values, x.shape[axis])) for values in (mean, std))
    if np.ptp(mean) == np.ptp(std) == 0.0:
        scale, offset = float(1 / std[0]), float(-mean[0] / std[0])
        return keras.layers.Rescaling(scale, offset, name="preprocessing", dtype=dtype)(x)
    return keras.layers.Normalization(axis, mean, std**2, name="preprocessing", dtype=dtype)(x)


def normalizers_inside(model):
    """Return the layers of a model that normalize pixels: that of `preprocess`, or a user's own."""
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    return [layer for layer in all_layers(model) if isinstance(layer, kinds)]


def normalization_inside(model):
    """Return the `(mean, std)` by which a model normalizes, for pixels in 0..1; None without, or if it can't be told.

    It can be told of one `Rescaling`, or of one `Normalization` that was built with a mean and a variance.
    """
    layers = normalizers_inside(model)
    if len(layers) != 1:
        return None
    (layer,) = layers
    if isinstance(layer, keras.layers.Rescaling):
        scale, offset = np.broadcast_arrays(np.ravel(layer.scale), np.ravel(layer.offset))
        if not np.all(scale > 0):
            return None
        mean, deviation = (0.0 - offset) / scale, 1 / scale  # no -0.0
    elif layer.input_mean is None or layer.invert:
        return None
    else:
        mean, deviation = np.ravel(layer.input_mean), np.sqrt(np.ravel(layer.input_variance))
    return tuple(map(float, mean / 255)), tuple(map(float, deviation / 255))


def resized_inside(model):
    """Return the `(height, width)` to which a model's own `resize` layer resizes images, or None."""
    layer = next((layer for layer in all_layers(model) if layer.name == "resizing"), None)
    return (layer.height, layer.width) if isinstance(layer, Resize) else None


def for_channels(values, channels):
    """Return three colors' means or deviations for other channels: for gray their mean, for more than three in turn."""
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(channels))


def _minimum(architecture):
    return 1 if architecture.stem is None else architecture.minimum_size


def _tensor_shape(tensor, expected):
    if not isinstance(tensor, keras.KerasTensor):
        raise ArgumentError(
            f"input_tensor of type {type(tensor).__name__} is not allowed: give a Keras tensor, such as keras.Input "
            "or another layer's output."
        )
    if len(tensor.shape) != 4:
        raise ArgumentError(f"input_tensor has the shape {tensor.shape}: it must be a batch of {expected}.")
    return tuple(tensor.shape[1:])


def _sources(tensor):
    """Return the inputs that `tensor` was computed from."""
    found = keras.utils.get_source_inputs(tensor)
    return found[0] if len(found) == 1 else found


def _input_dtype(dtype):
    """Return images come in as the variables' type; a layer casts them down itself under mixed precision."""
    return keras.dtype_policies.get(dtype or keras.config.dtype_policy()).variable_dtype


def _wrong_side(shape, data_format, minimum):
    """Return a hint where the shape would be fine with its channels on the other side."""
    first, last = shape[0], shape[-1]
    turned = (shape[1], shape[2]) if data_format == "channels_last" else (shape[0], shape[1])
    edge = first if data_format == "channels_last" else last
    if edge is not None and edge < minimum and all(n is None or n >= minimum for n in turned):
        return f" The channels look to be on the other side: this is data_format={data_format!r}."
    return ""
