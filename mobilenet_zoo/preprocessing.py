"""Pictures as a model was trained to see them: resized, cropped in the centre, normalised."""

import dataclasses

import keras

from mobilenet_common.errors import number, one_of, pair, unknown_name
from mobilenet_common.foreign import without_hub
from mobilenet_common.inputs import for_channels
from mobilenet_common.nesting import all_layers, as_functional
from mobilenet_common.ops.layout import split_shape
from mobilenet_runtime.transform import INTERPOLATIONS, Preprocessing
from mobilenet_zoo.facts import Facts, facts_of
from mobilenet_zoo.registry import WEIGHTS, registry

_SIZE = 224  # of a model that nothing is known about


def preprocessing(model_or_name, *, input_size=None, crop=None, interpolation=None):
    """The evaluation transform that belongs to a model, as timm applies it.

    A picture is resized until its shorter side is `input_size / crop`, cropped to `input_size` in the centre, and
    normalised. Files go through Pillow and are turned upright by their EXIF orientation.

    Args:
        model_or_name: A model of this library, or the name of one or of published weights, such as
            `"mobilenetv4_conv_medium.e500_r256_in1k"`. A model that was built from published weights is known by its
            name, one from `from_pretrained` by what was saved with it, and a model around one of them by that one; any
            other gets its input's size, a crop of 0.875, bicubic interpolation and pixels in -1..1. A model that
            normalizes itself, by `include_preprocessing` or by a `Rescaling` or `Normalization` of your own, gets
            pixels in 0..255.
        input_size: Height and width in pixels, an integer or a pair; None for the model's own.
        crop: Share of the resized picture that the input takes, in (0, 1]; None for that of the weights at this size.
        interpolation: `"nearest"`, `"bilinear"`, `"bicubic"` or `"lanczos"`; None for that of the weights.

    Returns:
        A `Preprocessing`: call it with a path, a PIL image, an array of pixels in 0..255, or a list of them.

    Raises:
        ValueError: An argument is wrong, or a name is unknown.
    """
    if isinstance(model_or_name, str):
        facts, shape, data_format, inside, resized = *_of_name(model_or_name), False, None
    else:
        facts, shape, data_format, inside, resized = _of_model(model_or_name)
    _, height, width, channels = split_shape((None, *shape), data_format)
    size = None if input_size is None else pair("input_size", input_size, 1, "(height, width)")
    if size is None:
        default = resized or (facts.size if facts else (_SIZE, _SIZE))
        size = tuple(own or n for own, n in zip((height, width), default, strict=True))
    if facts and facts.base in WEIGHTS and size != facts.size:
        facts = dataclasses.replace(facts, crop=WEIGHTS[facts.base].evaluation(min(size)).crop)
    facts = facts or Facts(size)
    return Preprocessing(
        size=size,
        crop=number("crop", facts.crop if crop is None else crop, 0, 1, low_open=True),
        interpolation=one_of("interpolation", interpolation or facts.interpolation, INTERPOLATIONS),
        mean=None if inside else for_channels(facts.mean, channels),
        std=None if inside else for_channels(facts.std, channels),
        channels=channels,
        data_format=data_format,
    )


def _of_name(name):
    """The facts, the input's shape and the data format of a model of that name."""
    name = without_hub(name).partition("@")[0]
    if name not in WEIGHTS and name not in registry():
        raise unknown_name("model_or_name", name, [*registry(), *WEIGHTS])
    data_format = keras.config.image_data_format()
    shape = (None, None, 3) if data_format == "channels_last" else (3, None, None)
    return Facts.of_checkpoint(WEIGHTS[name]) if name in WEIGHTS else None, shape, data_format


def _of_model(model):
    """As `_of_name`, and whether the model normalises, and the size that it resizes to, or None."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"model_or_name of type {type(model).__name__} is not allowed: give a model of this library or the name "
            "of one."
        )
    layers = all_layers(model)
    stem = next((layer for layer in layers if layer.name == "stem"), None)
    if stem is None:
        raise ValueError(f"{model.name} has no stem that images go into: it is no model of this library.")
    facts = facts_of(model)
    model = as_functional(model, "preprocessing")
    if len(model.inputs) != 1:
        raise ValueError(f"{model.name} has {len(model.inputs)} inputs: preprocessing takes models with one.")
    normalizes = any(isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)) for layer in layers)
    resizing = next((layer for layer in layers if layer.name == "resizing"), None)
    resized = (resizing.height, resizing.width) if resizing else None
    return facts, tuple(model.inputs[0].shape[1:]), stem.data_format, normalizes, resized
