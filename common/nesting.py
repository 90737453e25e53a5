"""Models within models, and layers within layers: the one place that walks them."""

from typing import Any

import keras

from mobilenet_common.errors import ArgumentError
from mobilenet_common.internals.keras_internals import graph_calls, inner_layers, producer


def all_layers(layer):
    """Return every layer inside a model or a layer, at any depth, once each.

    Args:
        layer: A `keras.Model` or layer, which is not among the results.
    """
    return inner_layers(layer)


def as_functional(model, caller):
    """Return `model` as a functional one, with the same layers: a `Sequential` has a graph too.

    Args:
        model: A model, or whatever else a user may pass.
        caller: The public function that needs it, for the message.

    Raises:
        ValueError: It has no graph: it is subclassed, not built yet, or no model.
    """
    if isinstance(model, keras.Sequential) and model.built:
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if isinstance(model, keras.Model) and hasattr(model, "operations"):
        return model
    if isinstance(model, keras.Sequential):
        raise ArgumentError(f"{caller} takes models that are built: start {model.name} with a keras.Input.")
    if not isinstance(model, keras.Model):
        raise ArgumentError(
            f"{caller} takes a functional keras.Model, such as the create functions build, "
            f"not a {type(model).__name__}."
        )
    raise ArgumentError(
        f"{caller} takes functional and Sequential models, and {model.name}, a {type(model).__name__}, is neither."
        + where_inside(model)
    )


def calls(model):
    """Return `(operation, inputs, outputs)` of every call in a functional model's graph, in the order of running.

    A layer that is shared is there as often as it is called. `layer.input` and `layer.output` don't tell that: those of
    a model within the model are its own.
    """
    return graph_calls(model)


def last_layer(model: keras.Model) -> Any:
    """Return the layer that gives a model's first output, be it in a model within the model."""
    layer = model
    while isinstance(layer, keras.Model) and layer.layers:
        outputs = getattr(layer, "outputs", None)  # of a subclassed model there are none
        layer = producer(outputs[0]) if outputs else layer.layers[-1]
    return layer


def stem_of(model: keras.Model) -> Any:
    """Return the layer that images go into, be it in a model within the model, or None."""
    return next((layer for layer in all_layers(model) if layer.name == "stem"), None)


def inner_mobilenet(model):
    """Return the MobileNet that is a layer of `model`, at any depth, or None; `model` itself doesn't count."""
    for layer in all_layers(model):
        if isinstance(layer, keras.Model) and any(inner.name == "stem" for inner in layer.layers):
            return layer
    return None


def expression_inside(model):
    """Return how to get the MobileNet inside `model`, such as `"model.get_layer('body')"`; empty if that can't be done.

    It can't where there is none, or where a layer that is no model holds it.
    """
    names = _way(model, _wrapped(model))
    return "".join(["model", *(f".get_layer({name!r})" for name in names)]) if names else ""


def where_inside(model: keras.Model) -> str:
    """Return a sentence for messages that says how to get the MobileNet inside `model`; empty if there is none."""
    inner, expression = _wrapped(model), expression_inside(model)
    if inner is None:
        return ""
    return f" It wraps a MobileNet: pass {expression or f'that, {inner.name!r}'}."


def _wrapped(model):
    """Return the MobileNet inside `model`, or None where there is none or `model` is itself one."""
    return None if any(layer.name == "stem" for layer in model.layers) else inner_mobilenet(model)


def _way(model, inner):
    """Return the names of the layers that lead from `model` to `inner`; empty if `get_layer` doesn't reach it."""
    for layer in model.layers:
        if layer is inner:
            return [layer.name]
        names = _way(layer, inner) if isinstance(layer, keras.Model) else []
        if names:
            return [layer.name, *names]
    return []
