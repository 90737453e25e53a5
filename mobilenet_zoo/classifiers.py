"""Classifiers: detect whether a model has one, and replace it."""

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
    """Return whether a model has one 2D output, and a classifier layer, class names, or a final softmax or sigmoid."""
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
    """Return a new model with the same body and a newly initialized classifier for `num_classes` classes.

    The body is shared, not copied: afterwards, both models contain the same layers up to the classifier, with the same
    weights and `trainable` settings.

    Args:
        model: A model with top that a `create_mobilenet…` function built, or that was loaded from a saved file of such
            a model.
        num_classes: Number of classes, at least 1.
        classifier_activation: Any activation that Keras knows, or None for logits. The default, `...`, keeps the
            activation of `model`.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: The model has no classifier, `num_classes` is not an integer of at least 1, or Keras doesn't know
            the activation.
    """
    num_classes = integer("num_classes", num_classes, 1)
    names = {layer.name for layer in model.layers}
    if inside := where_inside(model):
        raise ArgumentError(
            f"{model.name} itself has no classifier.{inside[:-1]}, or add new layers to that MobileNet's output if it "
            "has no classifier either."
        )
    if not {"classifier", "predictions"} <= names:
        raise ArgumentError(
            f"{model.name} has no classifier to replace: build it with include_top=True, or add your own layers to "
            "its output."
        )
    old_classifier = model.get_layer("classifier")
    if classifier_activation is ...:
        classifier_activation = model.get_layer("predictions").activation
    check_activation("classifier_activation", classifier_activation)
    outputs = classify(old_classifier.input, num_classes, classifier_activation, old_classifier.dtype_policy)
    new_model = keras.Model(model.input, outputs, name=model.name)
    facts = facts_of(model)
    return remember(new_model, facts and dataclasses.replace(facts, class_names=None))
