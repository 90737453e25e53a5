"""The model as it leaves: fused, of one size, in the target's data format, with or without its two ends."""

import functools

import keras

from mobilenet_common.inputs import for_channels
from mobilenet_common.nesting import all_layers, as_functional, calls, last_layer
from mobilenet_common.ops.layout import channel_axis, join_shape, split_shape
from mobilenet_zoo.fusing import fuse

# Layers of Keras that compute the same in either data format, once their `data_format` says which.
_TURN = frozenset(
    "Activation Add AveragePooling2D Conv2D Dense DepthwiseConv2D Dropout Flatten GlobalAveragePooling2D "
    "GlobalMaxPooling2D InputLayer MaxPooling2D Multiply Normalization ReLU Rescaling SeparableConv2D Softmax "
    "UpSampling2D ZeroPadding2D".split()
)


def prepare(model, *, batch_size, image_size, data_format, scaling=None, softmax=None):
    """Return a copy of `model` for inference alone, with the same weights.

    Args:
        model: A functional model with one input.
        batch_size: Images at once, or None for any number.
        image_size: `(height, width)`.
        data_format: The target's own. A model with layers that can't be turned keeps its own.
        scaling: `(mean, std)` of each channel for pixels in 0..1, to be applied inside to pixels in 0..255; or None.
        softmax: True or False for probabilities or logits; None for what the model gives.

    Returns:
        A functional model without batch norm, in float32, whose input is called `image`.
    """
    fused = fuse(model, allow_training=True)
    own = data_format_of(model)
    if own != data_format and not all(map(_turns, fused.operations)):
        data_format = own
    channels = split_shape(model.inputs[0].shape, own)[-1]
    height, width = image_size
    shape = join_shape(batch_size, height, width, channels, data_format)
    image = keras.Input(batch_shape=shape, dtype="float32", name="image")
    scaled = image
    if scaling is not None:
        mean, std = scaling
        scaled = _scaling(mean, std, channels, data_format)(image)

    def called(layer, *args, **kwargs):
        if isinstance(layer, keras.layers.Dropout) or (layer.name == "resizing" and _does_nothing(layer, args[0])):
            return args[0]
        args = [scaled if arg is image else arg for arg in args]
        return layer(*args, **kwargs)

    dropped = _last_activation(fused) if softmax is False else None
    copy = keras.models.clone_model(
        fused,
        image,
        clone_function=functools.cache(lambda layer: _copied(layer, data_format, dropped)),
        call_function=called,
    )
    kept = {layer.name: layer for layer in copy.layers}
    for layer in fused.layers:
        if layer.name in kept:
            kept[layer.name].set_weights(layer.get_weights())
    if softmax and not ends_in_softmax(model):
        outputs = keras.layers.Softmax(name="probabilities")(copy.outputs[0])
        copy = keras.Model(image, outputs, name=model.name)
    return copy


def with_blocks(model):
    """Return the prepared `model` with the output of every layer, in order, as `{layer's name: tensor}`."""
    return keras.Model(model.inputs, block_outputs(model), name=model.name)


def blocks(model):
    """Return the layers of a prepared model that compute something, in order."""
    return [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def block_outputs(model):
    """Return `{layer's name: what it writes}` of the layers of a functional model that compute something, in order."""
    return {layer.name: outputs[0] for layer, _, outputs in calls(model)}


def without_softmax(model):
    """Return a copy of a functional `model`, with the same weights, that gives logits in place of probabilities."""
    last = _last_activation(model)

    def copied(layer):
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(as_functional(layer, "export"), clone_function=functools.cache(copied))
        if layer is last and isinstance(layer, keras.layers.Softmax):
            return keras.layers.Activation("linear", name=layer.name)
        config = layer.get_config()
        if layer is last:
            config["activation"] = "linear"
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=functools.cache(copied))
    copy.set_weights(model.get_weights())
    return copy


def output_names(model):
    """Return the names of a prepared model's outputs, in order."""
    if isinstance(model.output, dict):
        return list(model.output)
    names = ["predictions" if len(output.shape) == 2 else "features" for output in model.outputs]
    return names if len(names) == 1 else [f"{name}_{i}" for i, name in enumerate(names)]


def data_format_of(model):
    """Return `"channels_last"` or `"channels_first"`, as the first layer says that has one."""
    layers = (layer for layer in all_layers(model) if hasattr(layer, "data_format"))
    return next((layer.data_format for layer in layers), keras.config.image_data_format())


def ends_in_softmax(model: keras.Model) -> bool:
    """Return whether the model's last layer, be it in a model within the model, gives probabilities."""
    return _last_activation(model) is not None


def _last_activation(model):
    """Return the layer that ends a model by a softmax, or None."""
    last = last_layer(model)
    is_softmax = isinstance(last, keras.layers.Softmax) or getattr(last, "activation", 0) is keras.activations.softmax
    return last if is_softmax else None


def _turns(layer):
    kind = type(layer)
    if not isinstance(layer, keras.layers.Layer):  # a function of keras.ops, whose axes nobody knows
        return False
    return kind.__module__.startswith("mobilenet_common.") or (
        kind.__module__.startswith("keras.") and kind.__name__ in _TURN
    )


def _copied(layer, data_format, dropped):
    """Return a layer with the configuration of `layer`, in float32 and in `data_format`; `dropped` gets no softmax."""
    if isinstance(layer, keras.Model):  # which isn't turned, nor is what it is a layer of
        inner = as_functional(layer, "export")
        return keras.models.clone_model(
            inner, clone_function=functools.cache(lambda layer: _copied(layer, data_format, dropped))
        )
    config = layer.get_config()
    if not isinstance(layer, keras.layers.Layer):
        return type(layer).from_config(config)
    is_dropped = layer is dropped
    if is_dropped and isinstance(layer, keras.layers.Softmax):
        return keras.layers.Activation("linear", name=layer.name)
    if is_dropped:
        config["activation"] = "linear"
    config["dtype"] = "float32"
    if "data_format" in config:
        config["data_format"] = data_format
    if isinstance(layer, keras.layers.Normalization):
        config["axis"] = channel_axis(data_format)
    if isinstance(layer, keras.layers.Flatten) and _is_one_pixel(layer.input.shape, layer.data_format):
        config["data_format"] = "channels_last"  # the order is the same, and nothing needs turning
    return type(layer).from_config(config)


def _is_one_pixel(shape, data_format):
    return len(shape) == 4 and split_shape(shape, data_format)[1:3] == (1, 1)


def _does_nothing(resize, x):
    return split_shape(x.shape, resize.data_format)[1:3] == (resize.height, resize.width)


def _scaling(mean, std, channels, data_format):
    mean, std = (for_channels(values, channels) for values in (mean, std))
    if len({*mean}) == len({*std}) == 1:
        return keras.layers.Rescaling(1 / (255 * std[0]), -mean[0] / std[0], name="scaling")
    pixels = [[255 * value for value in values] for values in (mean, std)]
    return keras.layers.Normalization(
        channel_axis(data_format), pixels[0], [pixel**2 for pixel in pixels[1]], name="scaling"
    )
