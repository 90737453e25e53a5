"""The input of a model: the shape of its images, its input tensor, resizing and normalization."""

import keras
import numpy as np

from mobilenet_common.catalog import HALF
from mobilenet_common.errors import ArgumentError, integer, pair, plain_value
from mobilenet_common.layers.resizing import Resize
from mobilenet_common.nesting import all_layers


def resolve_input_shape(
    input_shape, input_tensor, data_format, architecture, default_size: int | None = 224, any_size=False
):
    """Check the shape of a model's input and return it, without the batch axis.

    Args:
        input_shape: Shape without the batch axis, in the model's data format, or None.
        input_tensor: A Keras tensor that the model is built on, or None.
        data_format: `"channels_last"` or `"channels_first"`.
        architecture: The `Architecture`.
        default_size: Height and width if neither a shape nor a tensor is given; None for any size.
        any_size: Whether height and width may be smaller than the architecture's minimum.

    Raises:
        ValueError: If the shape has the wrong rank, too few pixels, or missing or misplaced channels, or if it differs
            from the shape of `input_tensor`.
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
                f"input_shape=None is not enough for an architecture without a stem: pass the feature map's "
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
        raise ArgumentError(
            f"input_shape={input_shape!r} has no number of channels: pass {expected} with an integer for channels."
        )
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
    """Return `(inputs, x)`: the inputs of the model, and the Keras tensor to build the model on."""
    if input_tensor is None:
        x = keras.Input(input_shape, dtype=_input_dtype(dtype), name="image")
        return x, x
    return _sources(input_tensor), input_tensor


def resize_target(include_preprocessing, architecture):
    """Return the `(height, width)` to resize to according to `include_preprocessing`, or None if it is a bool.

    Raises:
        ValueError: If it is neither a bool nor a size that the architecture allows.
    """
    if isinstance(plain_value(include_preprocessing), bool):
        return None
    minimum = _minimum(architecture)
    try:
        return pair("include_preprocessing", include_preprocessing, minimum)
    except ArgumentError:
        raise ArgumentError(
            f"include_preprocessing={include_preprocessing!r} is not allowed: it must be True or False, or a size to "
            f"resize to, such as 224 or (192, 256), of at least {minimum} pixels in height and width."
        ) from None


def resize(x, size: tuple[int, int], facts, data_format, dtype):
    """Resize images to `size`, with the interpolation in `facts`, or bilinear if `facts` is None."""
    interpolation = facts.interpolation if facts else "bilinear"
    return Resize(*size, interpolation, name="resizing", dtype=dtype, data_format=data_format)(x)


def preprocess(x, facts, data_format, dtype):
    """Normalize pixels in 0..255 with the mean and standard deviation in `facts`, or to -1..1 if `facts` is None."""
    axis = -1 if data_format == "channels_last" else 1
    mean, std = (facts.mean, facts.std) if facts else HALF
    mean, std = (255.0 * np.array(for_channels(values, x.shape[axis])) for values in (mean, std))
    if np.ptp(mean) == np.ptp(std) == 0.0:
        scale, offset = float(1 / std[0]), float(-mean[0] / std[0])
        return keras.layers.Rescaling(scale, offset, name="preprocessing", dtype=dtype)(x)
    return keras.layers.Normalization(axis, mean, std**2, name="preprocessing", dtype=dtype)(x)


def normalizers_inside(model):
    """Return the layers of a model that normalize pixels, both from `preprocess` and added by users."""
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    return [layer for layer in all_layers(model) if isinstance(layer, kinds)]


def normalization_inside(model):
    """Return the `(mean, std)` with which a model normalizes images, for pixels in 0..1, or None if it is unknown.

    It is known if the model has exactly one normalizing layer, which is a `Rescaling`, or a `Normalization` that was
    created with a mean and a variance.
    """
    layers = normalizers_inside(model)
    if len(layers) != 1:
        return None
    (layer,) = layers
    if isinstance(layer, keras.layers.Rescaling):
        scale, offset = np.broadcast_arrays(np.ravel(layer.scale), np.ravel(layer.offset))
        if not np.all(scale > 0):
            return None
        mean, std = (0.0 - offset) / scale, 1 / scale  # The subtraction avoids -0.0.
    elif layer.input_mean is None or layer.invert:
        return None
    else:
        mean, std = np.ravel(layer.input_mean), np.sqrt(np.ravel(layer.input_variance))
    return tuple(map(float, mean / 255)), tuple(map(float, std / 255))


def resized_inside(model):
    """Return the `(height, width)` to which a model's layer from `resize` resizes images, or None without one."""
    layer = next((layer for layer in all_layers(model) if layer.name == "resizing"), None)
    return (layer.height, layer.width) if isinstance(layer, Resize) else None


def for_channels(values, channels):
    """Adapt the means or standard deviations of three colors to another number of channels.

    One channel gets the average of the three values; for more channels, the values are repeated in turn.
    """
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(channels))


def _minimum(architecture):
    return 1 if architecture.stem is None else architecture.minimum_size


def _tensor_shape(tensor, expected):
    if not isinstance(tensor, keras.KerasTensor):
        raise ArgumentError(
            f"input_tensor of type {type(tensor).__name__} is not allowed: pass a Keras tensor, such as a keras.Input "
            "or the output of a layer."
        )
    if len(tensor.shape) != 4:
        raise ArgumentError(
            f"input_tensor has the shape {tensor.shape}, which is not allowed: it must be a batch of {expected}."
        )
    return tuple(tensor.shape[1:])


def _sources(tensor):
    """Return the input or list of inputs that `tensor` was computed from."""
    inputs = keras.utils.get_source_inputs(tensor)
    return inputs[0] if len(inputs) == 1 else inputs


def _input_dtype(dtype):
    """Return the dtype of input images: the variables' dtype; under mixed precision, the layers cast the images."""
    return keras.dtype_policies.get(dtype or keras.config.dtype_policy()).variable_dtype


def _wrong_side(shape, data_format, minimum):
    """Return a hint if the shape would be valid in the other data format, else an empty string."""
    first, last = shape[0], shape[-1]
    other_size = (shape[1], shape[2]) if data_format == "channels_last" else (shape[0], shape[1])
    other_channels = first if data_format == "channels_last" else last
    if other_channels is not None and other_channels < minimum and all(n is None or n >= minimum for n in other_size):
        return f" The channels seem to be on the wrong side: the model has data_format={data_format!r}."
    return ""
