"""The model that a run trains: built for its classes, or somebody's own."""

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
    """Return a model with a class for each of `class_names`.

    Args:
        model: As in `train`.
        class_names: Of the data, in their order.
        recipe: A `Recipe` that says how it is made, or None for a teacher, which is taken as it is.
        weights: As in `train`.

    Raises:
        ValueError: It doesn't fit the classes.
    """
    if not isinstance(model, keras.Model):
        check_model("model" if recipe else "teacher", model)
    if isinstance(model, keras.Model):
        made = model
    elif without_hub(str(model)).partition("@")[0] in {**registry(), **WEIGHTS}:
        made = _named(without_hub(str(model)), class_names, recipe, weights)
    elif Path(model).suffix == ".keras":
        made = keras.saving.load_model(model, compile=False)
    else:
        made = from_pretrained(str(model))
    if not _fits(made, class_names):
        if isinstance(model, keras.Model) or recipe is None:
            raise ArgumentError(
                f"{made.name} gives {made.output_shape}, and the data has {len(class_names)} classes: give it a fresh "
                "classifier with mobilenet_zoo.reset_classifier."
            )
        made = reset_classifier(made, len(class_names))
    facts = facts_of(made) or Facts(_size(made))
    return remember(made, dataclasses.replace(facts, class_names=tuple(class_names)))


def set_head_alone(model, alone):
    """Let the head alone train, or everything that trained before.

    The head is what `_HEAD` names and, around a MobileNet that is a layer, all layers of one's own.
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
    """Let batch norm be as frozen after the block as it was before, so that the run's model trains like any other."""
    before = []
    for layer in [model, *all_layers(model)]:  # a block before what is in it
        name = "trainable" if isinstance(layer, keras.layers.BatchNormalization) else "norm_trainable"
        if hasattr(layer, name):
            before.append((layer, name, getattr(layer, name)))
    try:
        yield
    finally:
        for layer, name, value in before:
            setattr(layer, name, value)


def _named(model, class_names, recipe, weights):
    is_published = model.partition("@")[0] in WEIGHTS
    own_weights = model if is_published else "imagenet"  # the best weights need not be those with the tag
    if recipe is None:
        return create_model(model, weights=own_weights)
    own = recipe.model
    options = {"dropout_rate": own.dropout_rate, "drop_path_rate": own.drop_path_rate, "dtype": recipe.precision}
    if own.norm_momentum is not None:
        options["norm_momentum"] = own.norm_momentum
    if recipe.image_size is not None:
        options["input_shape"] = _shape(recipe.image_size)
    if weights is None:
        weights = own_weights if recipe.head_epochs or is_published else False
    return create_model(model, num_classes=len(class_names), weights=weights or None, **options)


def _shape(size):
    first = keras.config.image_data_format() == "channels_first"
    return (3, size, size) if first else (size, size, 3)


def _fits(model, class_names):
    known = facts_of(model)
    names = known.class_names if known else None
    return tuple(model.output_shape[1:]) == (len(class_names),) and names in (None, tuple(class_names))


def _size(model):
    from mobilenet_zoo.model_preprocessing import preprocessing

    return preprocessing(model).size
