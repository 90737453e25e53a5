"""Prepare a model for export: fuse it, and set its input size, data format, preprocessing and softmax."""

import functools

import keras

from mobilenet_common.inputs import for_channels
from mobilenet_common.nesting import all_layers, as_functional, calls, last_layer
from mobilenet_common.ops.layout import channel_axis, join_shape, split_shape
from mobilenet_zoo.fusing import fuse

# Keras layers that support both data formats, if `data_format` or `axis` in their config is adapted.
_CONVERTIBLE = frozenset(
    "Activation Add AveragePooling2D Conv2D Dense DepthwiseConv2D Dropout Flatten GlobalAveragePooling2D "
    "GlobalMaxPooling2D InputLayer MaxPooling2D Multiply Normalization ReLU Rescaling SeparableConv2D Softmax "
    "UpSampling2D ZeroPadding2D".split()
)


def prepare(model, *, batch_size, image_size, data_format, scaling=None, softmax=None):
    """Return a copy of `model` for inference only, with the same weights.

    Args:
        model: Functional model with one input.
        batch_size: Number of images per batch, or None for any number.
        image_size: `(height, width)` of the images.
        data_format: Data format of the export format, `"channels_last"` or `"channels_first"`. A model with layers that
            can't be converted keeps its own data format.
        scaling: `(mean, std)` per channel, for pixels in 0..1. The copy then takes pixels in 0..255 and normalizes
            them. With None, no normalization is added.
        softmax: Whether the copy returns probabilities (True) or logits (False). None for the model's own output.

    Returns:
        A functional model in float32 without batch norm. Its input is named `image`.
    """
    fused = fuse(model, allow_training=True)
    model_format = data_format_of(model)
    if model_format != data_format and not all(map(_is_convertible, fused.operations)):
        data_format = model_format
    channels = split_shape(model.inputs[0].shape, model_format)[-1]
    height, width = image_size
    shape = join_shape(batch_size, height, width, channels, data_format)
    image = keras.Input(batch_shape=shape, dtype="float32", name="image")
    normalized = image
    if scaling is not None:
        mean, std = scaling
        normalized = _scaling(mean, std, channels, data_format)(image)

    def call(layer, *args, **kwargs):
        if isinstance(layer, keras.layers.Dropout) or (layer.name == "resizing" and _is_identity(layer, args[0])):
            return args[0]
        args = [normalized if arg is image else arg for arg in args]
        return layer(*args, **kwargs)

    softmax_layer = _final_softmax(fused) if softmax is False else None
    copy = keras.models.clone_model(
        fused,
        image,
        clone_function=functools.cache(lambda layer: _converted_copy(layer, data_format, softmax_layer)),
        call_function=call,
    )
    copies = {layer.name: layer for layer in copy.layers}
    for layer in fused.layers:
        if layer.name in copies:
            copies[layer.name].set_weights(layer.get_weights())
    if softmax and not ends_in_softmax(model):
        outputs = keras.layers.Softmax(name="probabilities")(copy.outputs[0])
        copy = keras.Model(image, outputs, name=model.name)
    return copy


def with_blocks(model):
    """Return a model with the same layers as the prepared `model` that outputs `{layer name: output of the layer}`."""
    return keras.Model(model.inputs, block_outputs(model), name=model.name)


def blocks(model):
    """Return the layers of a prepared model in order, without its input layer."""
    return [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def block_outputs(model):
    """Return `{layer name: output tensor}` for the layers of a functional model, in order of computation."""
    return {layer.name: outputs[0] for layer, _, outputs in calls(model)}


def without_softmax(model):
    """Return a copy of a functional `model` with the same weights that returns logits instead of probabilities."""
    last = _final_softmax(model)

    def copy_layer(layer):
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(as_functional(layer, "export"), clone_function=functools.cache(copy_layer))
        if layer is last and isinstance(layer, keras.layers.Softmax):
            return keras.layers.Activation("linear", name=layer.name)
        config = layer.get_config()
        if layer is last:
            config["activation"] = "linear"
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=functools.cache(copy_layer))
    copy.set_weights(model.get_weights())
    return copy


def output_names(model):
    """Return the names of a prepared model's outputs, in order."""
    if isinstance(model.output, dict):
        return list(model.output)
    names = ["predictions" if len(output.shape) == 2 else "features" for output in model.outputs]
    return names if len(names) == 1 else [f"{name}_{i}" for i, name in enumerate(names)]


def data_format_of(model):
    """Return the data format of the first layer that has one, or Keras's setting if no layer has one."""
    layers = (layer for layer in all_layers(model) if hasattr(layer, "data_format"))
    return next((layer.data_format for layer in layers), keras.config.image_data_format())


def ends_in_softmax(model: keras.Model) -> bool:
    """Return whether the model's last layer, or the last layer of a nested model, is a softmax."""
    return _final_softmax(model) is not None


def _final_softmax(model):
    """Return the model's last layer if it computes a softmax, else None."""
    last = last_layer(model)
    is_softmax = isinstance(last, keras.layers.Softmax) or getattr(last, "activation", 0) is keras.activations.softmax
    return last if is_softmax else None


def _is_convertible(layer):
    layer_class = type(layer)
    if not isinstance(layer, keras.layers.Layer):  # An operation of keras.ops can use any axes.
        return False
    return layer_class.__module__.startswith("mobilenet_common.") or (
        layer_class.__module__.startswith("keras.") and layer_class.__name__ in _CONVERTIBLE
    )


def _converted_copy(layer, data_format, softmax_layer):
    """Return a copy of `layer` in float32 and in `data_format`. The copy of `softmax_layer` has no softmax."""
    if isinstance(layer, keras.Model):  # `data_format` is the model's own: nested models are not convertible.
        inner = as_functional(layer, "export")
        return keras.models.clone_model(
            inner, clone_function=functools.cache(lambda layer: _converted_copy(layer, data_format, softmax_layer))
        )
    config = layer.get_config()
    if not isinstance(layer, keras.layers.Layer):
        return type(layer).from_config(config)
    drops_softmax = layer is softmax_layer
    if drops_softmax and isinstance(layer, keras.layers.Softmax):
        return keras.layers.Activation("linear", name=layer.name)
    if drops_softmax:
        config["activation"] = "linear"
    config["dtype"] = "float32"
    if "data_format" in config:
        config["data_format"] = data_format
    if isinstance(layer, keras.layers.Normalization):
        config["axis"] = channel_axis(data_format)
    if isinstance(layer, keras.layers.Flatten) and _is_one_pixel(layer.input.shape, layer.data_format):
        config["data_format"] = "channels_last"  # For one pixel, the order is the same, and no transpose is needed.
    return type(layer).from_config(config)


def _is_one_pixel(shape, data_format):
    return len(shape) == 4 and split_shape(shape, data_format)[1:3] == (1, 1)


def _is_identity(resize, x):
    return split_shape(x.shape, resize.data_format)[1:3] == (resize.height, resize.width)


def _scaling(mean, std, channels, data_format):
    mean, std = (for_channels(values, channels) for values in (mean, std))
    if len({*mean}) == len({*std}) == 1:
        return keras.layers.Rescaling(1 / (255 * std[0]), -mean[0] / std[0], name="scaling")
    pixels = [[255 * value for value in values] for values in (mean, std)]
    return keras.layers.Normalization(
        channel_axis(data_format), pixels[0], [pixel**2 for pixel in pixels[1]], name="scaling"
    )
