"""The model that a run trains: created by name, loaded, or passed in, with the number of classes of the data."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import keras

from mobilenet_common.errors import ArgumentError
from mobilenet_common.facts import Facts, facts_of, remember
from mobilenet_common.foreign import without_hub
from mobilenet_common.nesting import all_layers, inner_mobilenet
from mobilenet_zoo.classifiers import reset_classifier
from mobilenet_zoo.names import check_model
from mobilenet_zoo.pretrained import from_pretrained
from mobilenet_zoo.registry import WEIGHTS, create_model, registry

_HEAD = ("classifier", "head", "predictions")


def build(model, class_names, recipe, weights):
    """Return a model that predicts the given classes.

    Args:
        model: A model, name or path, as in `train`.
        class_names: Names of the data's classes, in the order of the outputs.
        recipe: A `Recipe` with the options of the model, or None for a teacher, which is created with its defaults.
        weights: Weights that a named model starts from, as in `train`.

    Raises:
        ValueError: The model doesn't match the classes.
    """
    if not isinstance(model, keras.Model):
        check_model("model" if recipe else "teacher", model)
    if isinstance(model, keras.Model):
        built = model
    elif without_hub(str(model)).partition("@")[0] in {**registry(), **WEIGHTS}:
        built = _create_named(without_hub(str(model)), class_names, recipe, weights)
    elif Path(model).suffix == ".keras":
        built = keras.saving.load_model(model, compile=False)
    else:
        built = from_pretrained(str(model))
    if not _fits(built, class_names):
        if isinstance(model, keras.Model) or recipe is None:
            raise ArgumentError(
                f"{built.name} doesn't match the data's {len(class_names)} classes in number or in names: its output "
                f"shape is {built.output_shape}. Replace its classifier with mobilenet_zoo.reset_classifier."
            )
        built = reset_classifier(built, len(class_names))
    facts = facts_of(built) or Facts(_size(built))
    return remember(built, dataclasses.replace(facts, class_names=tuple(class_names)))


def set_head_alone(model, alone):
    """Make only the head trainable if `alone`; otherwise, restore which layers were trainable before.

    The head consists of the layers whose names start with one of `_HEAD`. If the model contains a MobileNet as a layer,
    all layers around the MobileNet belong to the head as well.
    """
    is_around = inner_mobilenet(model) is not None
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            set_head_alone(layer, alone)
        elif alone:
            layer._trained_before = getattr(layer, "_trained_before", layer.trainable)
            layer.trainable = layer._trained_before and (is_around or layer.name.startswith(_HEAD))
        elif hasattr(layer, "_trained_before"):
            layer.trainable = layer._trained_before


@contextlib.contextmanager
def norms_restored(model: keras.Model) -> Iterator[None]:
    """When this context ends, restore which batch norms are frozen, so that the trained model isn't left frozen."""
    previous = []
    for layer in [model, *all_layers(model)]:  # A block comes before its inner layers.
        name = "trainable" if isinstance(layer, keras.layers.BatchNormalization) else "norm_trainable"
        if hasattr(layer, name):
            previous.append((layer, name, getattr(layer, name)))
    try:
        yield
    finally:
        for layer, name, value in previous:
            setattr(layer, name, value)


def _create_named(model, class_names, recipe, weights):
    is_published = model.partition("@")[0] in WEIGHTS
    default_weights = model if is_published else "imagenet"  # "imagenet" would ignore the tag.
    if recipe is None:
        return create_model(model, weights=default_weights)
    settings = recipe.model
    options = {
        "dropout_rate": settings.dropout_rate,
        "drop_path_rate": settings.drop_path_rate,
        "dtype": recipe.precision,
    }
    if settings.norm_momentum is not None:
        options["norm_momentum"] = settings.norm_momentum
    if recipe.image_size is not None:
        options["input_shape"] = _shape(recipe.image_size)
    if weights is None:
        weights = default_weights if recipe.head_epochs or is_published else False
    return create_model(model, num_classes=len(class_names), weights=weights or None, **options)


def _shape(size):
    is_channels_first = keras.config.image_data_format() == "channels_first"
    return (3, size, size) if is_channels_first else (size, size, 3)


def _fits(model, class_names):
    known = facts_of(model)
    names = known.class_names if known else None
    return tuple(model.output_shape[1:]) == (len(class_names),) and names in (None, tuple(class_names))


def _size(model):
    from mobilenet_zoo.model_preprocessing import preprocessing

    return preprocessing(model).size
