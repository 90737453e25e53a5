"""Models as classifiers: whether a model is one, and a fresh classifier on a body that has learned already."""

import dataclasses
from collections.abc import Callable
from types import EllipsisType

import keras

from mobilenet_common.architecture import check_activation
from mobilenet_common.builder import classify
from mobilenet_common.errors import ArgumentError, integer
from mobilenet_common.facts import facts_of, remember
from mobilenet_common.nesting import last_layer, where_inside


def is_classifier(model: keras.Model) -> bool:
    """Return whether a model classifies: it has a classifier, class names, or ends in softmax or sigmoid."""
    outputs = getattr(model, "outputs", None) or ()
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        return False
    known, last = facts_of(model), last_layer(model)
    activation = getattr(last, "activation", None)
    return (
        (known is not None and known.class_names is not None)
        or last.name in ("classifier", "predictions")
        or isinstance(last, keras.layers.Softmax)
        or activation in (keras.activations.softmax, keras.activations.sigmoid)
    )


def reset_classifier(
    model: keras.Model, num_classes: int, classifier_activation: str | Callable | EllipsisType | None = ...
) -> keras.Model:
    """Return a model with the same body and a fresh classifier of `num_classes`.

    The body is shared and not copied: the layers up to the classifier, with their weights and their `trainable`
    settings, belong to both models afterwards.

    Args:
        model: A model with top that a `create_mobilenet…` function built, or that was loaded from its file.
        num_classes: Outputs, at least 1.
        classifier_activation: Anything that Keras knows, None for logits; `...`, the default, keeps the model's own.

    Returns:
        A new functional `keras.Model`.

    Raises:
        ValueError: The model has no classifier, or `num_classes` is not an integer of at least 1.
    """
    num_classes = integer("num_classes", num_classes, 1)
    names = {layer.name for layer in model.layers}
    if inside := where_inside(model):
        raise ArgumentError(
            f"{model.name} has no classifier of its own.{inside[:-1]}, or put new layers on that MobileNet's output if "
            "it has no classifier either."
        )
    if not {"classifier", "predictions"} <= names:
        raise ArgumentError(
            f"{model.name} has no classifier to replace: build it with include_top=True, or put layers of your own "
            "on its output."
        )
    old = model.get_layer("classifier")
    if classifier_activation is ...:
        classifier_activation = model.get_layer("predictions").activation
    check_activation("classifier_activation", classifier_activation)
    outputs = classify(old.input, num_classes, classifier_activation, old.dtype_policy)
    fresh = keras.Model(model.input, outputs, name=model.name)
    facts = facts_of(model)
    return remember(fresh, facts and dataclasses.replace(facts, class_names=None))
