"""Fusing: fold batch norm into the preceding convolutions of a trained model."""

import functools

import keras
import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_common.facts import facts_of, remember
from mobilenet_common.layers import ConvNormActivation, NormActivation
from mobilenet_common.layers.block import Block
from mobilenet_common.nesting import as_functional


def fuse(model: keras.Model, allow_training: bool = False) -> keras.Model:
    """Return a copy of `model` without batch norm that computes the same outputs.

    In inference, batch norm multiplies each channel by a factor and adds an offset. The factor is folded into the
    kernel of the preceding convolution, and the offset becomes the bias of that convolution. Layer scale is folded
    into the preceding projection. A batch norm that follows no convolution, as in attention, becomes a normalization of
    the type `"affine"`, which only has the factor and the offset. Other normalizations don't change.

    The copy is an ordinary Keras model with the same layer names. It can be saved, and loaded after
    `import mobilenet_zoo`. Its outputs agree with the outputs of `model` to about 1e-6 of the largest output. `model`
    itself doesn't change.

    Args:
        model: A functional or `Sequential` model that contains layers of this library. Other layers are copied, and
            nested models are fused too.
        allow_training: Whether to fuse the current weights of a model that is compiled for training.

    Returns:
        A functional `keras.Model` that is not compiled.

    Raises:
        ValueError: `model` or a nested model is neither functional nor a built `Sequential`, or `model` is compiled
            with an optimizer and has trainable weights while `allow_training` is False.
    """
    functional = as_functional(model, "fuse")
    if not allow_training and getattr(model, "optimizer", None) is not None and model.trainable_weights:
        raise ArgumentError(
            f"{model.name} is compiled for training, and further training would not change a fused copy. When "
            "training is finished, set model.trainable = False before fusing, or call fuse(model, allow_training=True) "
            "to fuse the current weights."
        )
    fused = keras.models.clone_model(functional, clone_function=functools.cache(_fused_layer))
    for old, new in zip(functional.layers, fused.layers, strict=True):
        if not isinstance(old, keras.Model):
            _copy_weights(old, new)
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
    """Return whether a layer is a block whose layer scale directly follows its last convolution."""
    if not isinstance(layer, Block) or layer.layer_scale is None or layer.normalization not in ("batch", None):
        return False
    last = layer.last_convolution
    return last.activation is keras.activations.linear and not last.halves


def _copy_weights(old, new):
    """Copy the weights of the layer `old` to its fused counterpart `new`, folding those that `new` doesn't have."""
    old_parts, new_parts = _parts(old), _parts(new)
    factors = {}
    if _folds_layer_scale(old):
        factors[_relative_path(old.last_convolution, old)] = _as_float64(old.layer_scale.gamma)
    for name, variables in new_parts.items():
        if "moving_mean" in variables:  # Keras's own BatchNormalization is copied unchanged.
            for key, variable in variables.items():
                variable.assign(old_parts[name][key])
            continue
        values = _fold(old_parts[name], factors.get(name), getattr(old, "norm_epsilon", None))
        for key, variable in variables.items():
            variable.assign(values[key])


def _parts(layer):
    """Return the variables of a layer, grouped by sublayer: `{"/expand": {"kernel": variable, ...}, ...}`."""
    parts = {}
    for variable in layer.weights:
        part, _, name = _relative_path(variable, layer).rpartition("/")
        parts.setdefault(part, {})[name] = variable
    return parts


def _relative_path(inner, layer):
    """Return the path of a sublayer or variable relative to `layer`.

    The path of `layer` itself begins with the name of the model that it was built in.
    """
    return inner.path.removeprefix(layer.path)


def _fold(variables, factor, epsilon):
    """Return the kernel and bias, or gamma and beta, that combine a convolution, a batch norm and a `factor`."""
    values = {name: _as_float64(variable) for name, variable in variables.items()}
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
    if kernel.shape[-1] != len(scale):  # A depthwise kernel has its channels in the second-to-last axis.
        scale = scale[:, None]
    return {"kernel": kernel * scale, "bias": offset}


def _as_float64(variable):
    return np.asarray(keras.ops.convert_to_numpy(variable), "float64")
