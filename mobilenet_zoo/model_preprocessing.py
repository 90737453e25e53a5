"""The preprocessing of a model's images: resize, center crop and normalize as in training."""

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

_DEFAULT_SIZE = 224  # in pixels, for models that don't record a size


def preprocessing(
    model_or_name: keras.Model | str,
    *,
    input_size: int | tuple[int, int] | None = None,
    crop: float | None = None,
    interpolation: str | None = None,
) -> Preprocessing:
    """Return the evaluation transform of a model or of published weights, with the same steps as in timm.

    The transform resizes an image so that its shorter side is `input_size / crop`, crops it to `input_size` in the
    center, and normalizes it. Image files are opened with Pillow and rotated according to their EXIF orientation.

    A model gets the preprocessing of the weights that were loaded into it, by name or from a file, and stores it in
    files that it is saved to. The same is true of a model that contains a model of this library. A model that was built
    without weights gets the size of its input, a crop of 0.875, bicubic interpolation and pixels in -1..1. A model that
    normalizes images itself, with `include_preprocessing` or with your own `Rescaling` or `Normalization` layer, gets
    pixels in 0..255.

    Args:
        model_or_name: A model of this library, or the name of a model or of published weights, such as
            `"mobilenetv4_conv_medium.e500_r256_in1k"`.
        input_size: Height and width in pixels, an integer or a pair; None for the size of the model or the weights.
        crop: Fraction of the resized image that the crop covers, in (0, 1]; None for the crop of the weights at this
            size.
        interpolation: `"nearest"`, `"bilinear"`, `"bicubic"` or `"lanczos"`; None for the interpolation of the weights.

    Returns:
        A `Preprocessing`. Call it with a path, a PIL image, an array of pixels in 0..255, the bytes of an image file,
        an open file, or a list of these.

    Raises:
        ValueError: An argument is wrong, or a name is unknown.

    Warns:
        MobileNetWarning: The weights came from a file that doesn't record the preprocessing of its images, so it was
            assumed. The warning is given once per model; `set_preprocessing` replaces the assumption.
    """
    if isinstance(model_or_name, str):
        facts, shape, data_format, normalizes, resized = *_of_name(model_or_name), False, None
    else:
        facts, shape, data_format, normalizes, resized = _of_model(model_or_name)
        warn_if_assumed(stem_of(model_or_name), facts, SET_PREPROCESSING)
    height, width, channels = split_shape((None, *shape), data_format)[1:]
    size: Any = None if input_size is None else pair("input_size", input_size, 1, "(height, width)")
    if size is None:
        default = resized or (facts and facts.size) or (_DEFAULT_SIZE, _DEFAULT_SIZE)
        size = (height or default[0], width or default[1])
    if facts and facts.base in WEIGHTS and size != facts.size:
        facts = dataclasses.replace(facts, crop=WEIGHTS[facts.base].evaluation(min(size)).crop)
    facts = facts or Facts(size)
    return Preprocessing(
        size=size,
        crop=number("crop", facts.crop if crop is None else crop, 0, 1, low_open=True),
        interpolation=one_of("interpolation", interpolation or facts.interpolation, INTERPOLATIONS),
        mean=None if normalizes else for_channels(facts.mean, channels),
        std=None if normalizes else for_channels(facts.std, channels),
        channels=channels,
        data_format=data_format,
    )


def set_preprocessing(model: keras.Model, transform: Preprocessing | str) -> keras.Model:
    """Set the preprocessing of a model whose weights don't record it, or were trained with a different one.

    Afterwards, `preprocessing` returns it, and export, evaluation, training and the command line use it. The setting is
    stored in files that the model is saved to, and applies to all models that share the model's layers.

    Args:
        model: A model of this library.
        transform: A `Preprocessing`, such as `dataclasses.replace(preprocessing(model), mean=..., std=...)`, or the
            name of published weights that use the same preprocessing.

    Returns:
        The model.

    Raises:
        ValueError: An argument is wrong, the transform's normalization differs from the normalization inside the model,
            or neither the transform nor the model normalizes.
    """
    if isinstance(transform, str):
        name = without_hub(transform).partition("@")[0]
        if name not in WEIGHTS:
            raise unknown_name("transform", name, WEIGHTS)
        facts: Any = Facts.of_checkpoint(WEIGHTS[name])
        transform = Preprocessing(facts.size, facts.crop, facts.interpolation, facts.mean, facts.std)
    if not isinstance(transform, Preprocessing):
        raise ArgumentError(
            f"transform of type {type(transform).__name__} is not allowed: pass a Preprocessing or the name of "
            "published weights."
        )
    *_, normalizes, _ = _of_model(model)
    if not normalizes and transform.mean is None:
        raise ArgumentError(
            f"transform with mean=None and std=None is not allowed: {model.name} doesn't normalize images itself. Set "
            "mean and std; for a model that was trained on pixels in 0..255, they are 0 and 1 / 255."
        )
    if normalizes and transform.mean is not None:
        normalization = normalization_inside(model)
        if normalization is None:
            names = ", ".join(repr(layer.name) for layer in normalizers_inside(model))
            raise ArgumentError(
                f"transform with mean={transform.mean} and std={transform.std} is not allowed: {model.name} already "
                f"normalizes images ({names}), with a mean and std that can't be determined. Set mean=None and "
                "std=None."
            )
        expected = [for_channels(values, len(normalization[0])) for values in (transform.mean, transform.std)]
        if not np.allclose(normalization, expected, rtol=0, atol=1e-4):
            raise ArgumentError(
                f"transform with mean={transform.mean} and std={transform.std} is not allowed: {model.name} already "
                f"normalizes images, with mean={normalization[0]} and std={normalization[1]}. Build it without "
                "include_preprocessing."
            )
    known = facts_of(model)
    return use_transform(model, transform, known and known.base)


def use_transform(model, transform, base=None):
    """Store a `Preprocessing` and the name of the published base weights with a model, and return the model."""
    known = facts_of(model) or Facts()
    source = transform if transform.mean is not None else known
    facts = Facts(transform.size, transform.crop, transform.interpolation, source.mean, source.std, base=base)
    facts = Facts.from_config(facts.as_config())  # Validate now, so that a saved model can be loaded.
    return remember(model, dataclasses.replace(facts, class_names=known.class_names))


def _of_name(name):
    """Return the facts, input shape and data format of the model or published weights called `name`."""
    name = without_hub(name).partition("@")[0]
    if name not in WEIGHTS and name not in registry():
        raise unknown_name("model_or_name", name, [*registry(), *WEIGHTS], "mobilenet_zoo.list_models()")
    data_format = keras.config.image_data_format()
    shape = (None, None, 3) if data_format == "channels_last" else (3, None, None)
    return Facts.of_checkpoint(WEIGHTS[name]) if name in WEIGHTS else None, shape, data_format


def _of_model(model):
    """Return the facts, input shape and data format of a model, and how it preprocesses images itself.

    The fourth value is whether the model normalizes images, the fifth the size to which it resizes them, or None.
    """
    if not isinstance(model, keras.Model):
        raise ArgumentError(
            f"model of type {type(model).__name__} is not allowed: pass a keras.Model of this library, or, to "
            "preprocessing, its name."
        )
    stem = stem_of(model)
    if stem is None:
        raise ArgumentError(f"{model.name} has no layer named stem, so it is not a model of this library.")
    facts = facts_of(model)
    model = as_functional(model, "preprocessing")
    if len(model.inputs) != 1:
        raise ArgumentError(f"{model.name} has {len(model.inputs)} inputs: preprocessing needs a model with one input.")
    normalizes = bool(normalizers_inside(model))
    return facts, tuple(model.inputs[0].shape[1:]), stem.data_format, normalizes, resized_inside(model)
