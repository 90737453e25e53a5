"""Images as a model was trained to see them: resized, cropped in the center, normalized."""

import dataclasses
from typing import Any

import keras
import numpy as np

from mobilenet_common.choices import INTERPOLATIONS
from mobilenet_common.errors import ArgumentError, number, one_of, pair, unknown_name
from mobilenet_common.facts import SET_PREPROCESSING, Facts, facts_of, remember, warn_if_assumed
from mobilenet_common.foreign import without_hub
from mobilenet_common.inputs import for_channels, normalization_inside, normalizers_inside, resized_inside
from mobilenet_common.nesting import as_functional, stem_of
from mobilenet_common.ops.layout import split_shape
from mobilenet_runtime.transform import Preprocessing
from mobilenet_zoo.registry import WEIGHTS, registry

_SIZE = 224  # of a model that nothing is known about


def preprocessing(
    model_or_name: keras.Model | str,
    *,
    input_size: int | tuple[int, int] | None = None,
    crop: float | None = None,
    interpolation: str | None = None,
) -> Preprocessing:
    """Return the evaluation transform that belongs to a model, as timm applies it.

    An image is resized until its shorter side is `input_size / crop`, cropped to `input_size` in the center, and
    normalized. Files go through Pillow and are turned upright by their EXIF orientation.

    Args:
        model_or_name: A model of this library, or the name of one or of published weights, such as
            `"mobilenetv4_conv_medium.e500_r256_in1k"`. A model gets the transform of the weights that were loaded into
            it, whether by a name or from a file, and keeps it in its own files; so does a model around it. One that was
            built without weights gets its input's size, a crop of 0.875, bicubic interpolation and pixels in -1..1. A
            model that normalizes itself, by `include_preprocessing` or by a `Rescaling` or `Normalization` of your
            own, gets pixels in 0..255.
        input_size: Height and width in pixels, an integer or a pair; None for the model's own.
        crop: Fraction of the resized image that the input takes, in (0, 1]; None for that of the weights at this size.
        interpolation: `"nearest"`, `"bilinear"`, `"bicubic"` or `"lanczos"`; None for that of the weights.

    Returns:
        A `Preprocessing`: call it with a path, a PIL image, an array of pixels in 0..255, the bytes of an image file,
        an open file, or a list of them.

    Raises:
        ValueError: An argument is wrong, or a name is unknown.

    Warns:
        MobileNetWarning: The weights came from a file that does not tell how its images were prepared; once for a
            model. `set_preprocessing` says how.
    """
    if isinstance(model_or_name, str):
        facts, shape, data_format, inside, resized = *_of_name(model_or_name), False, None
    else:
        facts, shape, data_format, inside, resized = _of_model(model_or_name)
        warn_if_assumed(stem_of(model_or_name), facts, SET_PREPROCESSING)
    height, width, channels = split_shape((None, *shape), data_format)[1:]
    size: Any = None if input_size is None else pair("input_size", input_size, 1, "(height, width)")
    if size is None:
        default = resized or (facts and facts.size) or (_SIZE, _SIZE)
        size = (height or default[0], width or default[1])
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


def set_preprocessing(model: keras.Model, transform: Preprocessing) -> None:
    """Set how images are prepared for a model, where its weights don't tell or were trained in another way.

    `preprocessing` returns it from then on, and everything uses it that prepares images: export, evaluation, training,
    the command line. The model keeps it in its files, and models that share its layers have it too.

    Args:
        model: A model of this library.
        transform: A `Preprocessing`, such as `dataclasses.replace(preprocessing(model), mean=..., std=...)`, or the
            name of published weights that take the same images.

    Returns:
        The model.

    Raises:
        ValueError: An argument is wrong; or the transform's normalization is not the one inside the model, or is
            missing where the model has none.
    """
    if isinstance(transform, str):
        name = without_hub(transform).partition("@")[0]
        if name not in WEIGHTS:
            raise unknown_name("transform", name, WEIGHTS)
        facts: Any = Facts.of_checkpoint(WEIGHTS[name])
        transform = Preprocessing(facts.size, facts.crop, facts.interpolation, facts.mean, facts.std)
    if not isinstance(transform, Preprocessing):
        raise ArgumentError(
            f"transform of type {type(transform).__name__} is not allowed: give a Preprocessing or the name of "
            "published weights."
        )
    *_, is_inside, _ = _of_model(model)
    if not is_inside and transform.mean is None:
        raise ArgumentError(
            f"transform leaves pixels in 0..255, but {model.name} has no normalization inside: give mean and std, "
            "which are 0 and 1 / 255 for a model that was trained on such pixels."
        )
    if is_inside and transform.mean is not None:
        inside = normalization_inside(model)
        if inside is None:
            names = ", ".join(repr(layer.name) for layer in normalizers_inside(model))
            raise ArgumentError(
                f"transform with mean={transform.mean} and std={transform.std} is not allowed: {model.name} normalizes "
                f"images inside, by {names}, which does not say how. Set mean=None and std=None."
            )
        wanted = [for_channels(values, len(inside[0])) for values in (transform.mean, transform.std)]
        if not np.allclose(inside, wanted, rtol=0, atol=1e-4):
            raise ArgumentError(
                f"transform with mean={transform.mean} and std={transform.std} is not allowed: {model.name} normalizes "
                f"images inside by {inside[0]} and {inside[1]}. Build it without include_preprocessing."
            )
    known = facts_of(model)
    return use_transform(model, transform, known and known.base)


def use_transform(model, transform, base=None):
    """Keep a `Preprocessing` with a model, and the name of the published weights that it started from."""
    known = facts_of(model) or Facts()
    scale = transform if transform.mean is not None else known
    facts = Facts(transform.size, transform.crop, transform.interpolation, scale.mean, scale.std, base=base)
    facts = Facts.from_config(facts.as_config())  # what is kept can be loaded from a file again
    return remember(model, dataclasses.replace(facts, class_names=known.class_names))


def _of_name(name):
    """Return the facts, the input's shape and the data format of a model of that name."""
    name = without_hub(name).partition("@")[0]
    if name not in WEIGHTS and name not in registry():
        raise unknown_name("model_or_name", name, [*registry(), *WEIGHTS], "mobilenet_zoo.list_models()")
    data_format = keras.config.image_data_format()
    shape = (None, None, 3) if data_format == "channels_last" else (3, None, None)
    return Facts.of_checkpoint(WEIGHTS[name]) if name in WEIGHTS else None, shape, data_format


def _of_model(model):
    """Return what `_of_name` does, whether the model normalizes, and the size that it resizes to, or None."""
    if not isinstance(model, keras.Model):
        raise ArgumentError(
            f"model_or_name of type {type(model).__name__} is not allowed: give a model of this library or the name "
            "of one."
        )
    stem = stem_of(model)
    if stem is None:
        raise ArgumentError(f"{model.name} has no stem that images go into: it is no model of this library.")
    facts = facts_of(model)
    model = as_functional(model, "preprocessing")
    if len(model.inputs) != 1:
        raise ArgumentError(f"{model.name} has {len(model.inputs)} inputs: preprocessing takes models with one.")
    normalizes = bool(normalizers_inside(model))
    return facts, tuple(model.inputs[0].shape[1:]), stem.data_format, normalizes, resized_inside(model)
