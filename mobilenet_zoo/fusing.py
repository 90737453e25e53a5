"""Batch norm folded into the convolutions before it, for models that have learned."""

import functools

import keras
import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_common.facts import facts_of, remember
from mobilenet_common.layers import ConvNormActivation, NormActivation
from mobilenet_common.layers.block import Block
from mobilenet_common.nesting import as_functional


def fuse(model: keras.Model, allow_training: bool = False) -> keras.Model:
    """Return a copy of `model` that computes the same without batch norm.

    In inference batch norm is a factor and an offset per channel: the factor goes into the kernel of the convolution
    before it, the offset becomes the convolution's bias, and a layer scale goes into the projection that it follows.
    Where no convolution comes before a batch norm, as in attention, the two stay as a normalization of their own kind,
    `"affine"`. Other normalizations are left as they are.

    The copy is an ordinary Keras model with the same layer names; it saves, and loads after `import mobilenet_zoo`.
    Outputs agree to about 1e-6 of the largest. `model` is left as it was.

    Args:
        model: A functional or `Sequential` model with layers of this library, whatever else is in it; models within
            it are fused too.
        allow_training: Whether a model that is compiled for training may be fused as it stands.

    Returns:
        A functional `keras.Model` that is not compiled.

    Raises:
        ValueError: `model`, or a model within it, has no graph, or it still trains: it is compiled with an optimizer
            and has weights that training changes.
    """
    functional = as_functional(model, "fuse")
    if not allow_training and getattr(model, "optimizer", None) is not None and model.trainable_weights:
        raise ArgumentError(
            f"{model.name} still trains: it is compiled with an optimizer, and a fused copy would not follow what it "
            "learns later. When it has learned, set model.trainable = False before fusing, or call "
            "fuse(model, allow_training=True) to fuse it as it stands."
        )
    fused = keras.models.clone_model(functional, clone_function=functools.cache(_fused_layer))
    for old, new in zip(functional.layers, fused.layers, strict=True):
        if not isinstance(old, keras.Model):
            _carry_over(old, new)
    return remember(fused, facts_of(model))


def _fused_layer(layer):
    if isinstance(layer, keras.Model):
        return fuse(layer, allow_training=True)
    config = layer.get_config()
    if getattr(layer, "normalization", None) == "batch":
        if isinstance(layer, (Block, ConvNormActivation)):
            config |= {"normalization": None, "use_bias": True}
        elif isinstance(layer, NormActivation):
            config["normalization"] = "affine"
    if _folds_layer_scale(layer):
        config["layer_scale"] = None
    return type(layer).from_config(config)


def _folds_layer_scale(layer):
    """Return whether nothing stands between a block's last convolution and its layer scale."""
    if not isinstance(layer, Block) or layer.layer_scale is None or layer.normalization not in ("batch", None):
        return False
    last = layer.last_convolution
    return last.activation is keras.activations.linear and not last.halves


def _carry_over(old, new):
    """Give the layer `new` the weights of `old`, folded where `new` has no place for them."""
    old_parts, new_parts = _parts(old), _parts(new)
    factors = {}
    if _folds_layer_scale(old):
        factors[_place(old.last_convolution, old)] = _numbers(old.layer_scale.gamma)
    for name, variables in new_parts.items():
        if "moving_mean" in variables:  # a batch norm that isn't ours
            for key, variable in variables.items():
                variable.assign(old_parts[name][key])
            continue
        values = _folded(old_parts[name], factors.get(name), getattr(old, "norm_epsilon", None))
        for key, variable in variables.items():
            variable.assign(values[key])


def _parts(layer):
    """Return `{"/expand": {"kernel": variable, "gamma": variable, ...}, ...}`."""
    parts = {}
    for variable in layer.weights:
        part, _, name = _place(variable, layer).rpartition("/")
        parts.setdefault(part, {})[name] = variable
    return parts


def _place(inner, layer):
    """Return the path of something within a layer; that of the layer itself begins with the model it was built in."""
    return inner.path.removeprefix(layer.path)


def _folded(variables, factor, epsilon):
    """Return a convolution, a batch norm and a `factor` as one: kernel and bias, or gamma and beta."""
    values = {name: _numbers(variable) for name, variable in variables.items()}
    if "moving_mean" not in values and factor is None:
        return values
    scale = np.ones(()) if factor is None else factor
    offset = values.get("bias", 0.0) * scale
    if "moving_mean" in values:
        scale = scale * values["gamma"] / np.sqrt(values["moving_variance"] + epsilon)
        offset = (values.get("bias", 0.0) - values["moving_mean"]) * scale
        offset = offset + values["beta"] * (1.0 if factor is None else factor)
    if "kernel" not in values:
        return {"gamma": scale, "beta": offset}
    kernel = values["kernel"]
    if kernel.shape[-1] != len(scale):  # depthwise: the channels are the axis before
        scale = scale[:, None]
    return {"kernel": kernel * scale, "bias": offset}


def _numbers(variable):
    return np.asarray(keras.ops.convert_to_numpy(variable), "float64")
