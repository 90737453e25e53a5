"""Functions that walk nested models and layers."""

from typing import Any

import keras

from mobilenet_common.errors import ArgumentError
from mobilenet_common.internals.keras_internals import graph_calls, inner_layers, producer


def all_layers(layer):
    """Return every layer inside a model or a layer, at any depth and without duplicates.

    Args:
        layer: A `keras.Model` or layer. The result doesn't include it.
    """
    return inner_layers(layer)


def as_functional(model, caller):
    """Return `model` as a functional model; a built `Sequential` is converted and shares its layers.

    Args:
        model: The object that a user passed as a model.
        caller: Name of the public function that needs the model, for the error message.

    Raises:
        ValueError: If `model` has no graph, because it is a subclassed model, isn't built yet, or isn't a model.
    """
    if isinstance(model, keras.Sequential) and model.built:
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if isinstance(model, keras.Model) and hasattr(model, "operations"):
        return model
    if isinstance(model, keras.Sequential):
        raise ArgumentError(f"{caller} needs a built model: start {model.name} with a keras.Input.")
    if not isinstance(model, keras.Model):
        raise ArgumentError(
            f"{caller} takes a functional keras.Model, such as one from a create function, "
            f"not a {type(model).__name__}."
        )
    raise ArgumentError(
        f"{caller} takes functional and Sequential models, but {model.name} is a {type(model).__name__}."
        + where_inside(model)
    )


def calls(model):
    """Return `(operation, inputs, outputs)` of every call in a functional model's graph, in execution order.

    A shared layer appears once per call. `layer.input` and `layer.output` can't replace this function, because those of
    a nested model are tensors of the nested model's own graph.
    """
    return graph_calls(model)


def last_layer(model: keras.Model) -> Any:
    """Return the layer that computes a model's first output, which can be inside a nested model."""
    layer = model
    while isinstance(layer, keras.Model) and layer.layers:
        outputs = getattr(layer, "outputs", None)  # A subclassed model has no symbolic outputs.
        layer = producer(outputs[0]) if outputs else layer.layers[-1]
    return layer


def stem_of(model: keras.Model) -> Any:
    """Return the layer called `"stem"`, which can be inside a nested model, or None if there is none."""
    return next((layer for layer in all_layers(model) if layer.name == "stem"), None)


def inner_mobilenet(model):
    """Return the MobileNet that is nested in `model` at any depth, or None; `model` itself is not considered."""
    for layer in all_layers(model):
        if isinstance(layer, keras.Model) and any(inner.name == "stem" for inner in layer.layers):
            return layer
    return None


def expression_inside(model):
    """Return the expression that gets the MobileNet inside `model`, such as `"model.get_layer('body')"`.

    The result is empty if `model` contains no MobileNet, or if it is inside a layer that isn't a model.
    """
    names = _path_to(model, _wrapped_mobilenet(model))
    return "".join(["model", *(f".get_layer({name!r})" for name in names)]) if names else ""


def where_inside(model: keras.Model) -> str:
    """Return a sentence for error messages that says how to get the MobileNet inside `model`; empty without one."""
    inner, expression = _wrapped_mobilenet(model), expression_inside(model)
    if inner is None:
        return ""
    return f" It wraps a MobileNet: pass {expression or f'the inner model {inner.name!r}'}."


def _wrapped_mobilenet(model):
    """Return the MobileNet inside `model`, or None if it contains none or is a MobileNet itself."""
    return None if any(layer.name == "stem" for layer in model.layers) else inner_mobilenet(model)


def _path_to(model, inner):
    """Return the names of the layers on the path from `model` to `inner`; empty if `get_layer` can't reach it."""
    for layer in model.layers:
        if layer is inner:
            return [layer.name]
        names = _path_to(layer, inner) if isinstance(layer, keras.Model) else []
        if names:
            return [layer.name, *names]
    return []
