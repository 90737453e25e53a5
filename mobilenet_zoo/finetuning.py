"""Tools for fine-tuning: frozen batch norm and layer-wise learning rates."""

from typing import Any

import keras

from mobilenet_common.errors import ArgumentError, flag, number
from mobilenet_common.layers import NormActivation
from mobilenet_common.layers.block import Block
from mobilenet_common.nesting import all_layers
from mobilenet_zoo.layer_rates import RatesByLayer, layer_rates

_SUFFIX = "WithRates"


class _WithRates(RatesByLayer):
    """Optimizer mixin that multiplies the learning rate of each variable by the factor of its layer."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.rate_factor(variable))


def _with_rates(optimizer):
    name = optimizer.__name__ + _SUFFIX
    subclass = type(name, (_WithRates, optimizer), {"__doc__": f"{optimizer.__name__} with layer-wise learning rates."})
    return keras.saving.register_keras_serializable(package="mobilenet")(subclass)


# Every optimizer gets a registered subclass, so that compiled models can be saved and loaded.
_OPTIMIZERS = {
    name: _with_rates(getattr(keras.optimizers, name))
    for name in ("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "Lion", "RMSprop", "SGD")
}


def discriminative_rates(
    optimizer: str | dict | keras.optimizers.Optimizer, model: keras.Model, decay: float = 0.7
) -> keras.optimizers.Optimizer:
    """Return an optimizer that trains each stage more slowly than the next stage (Howard and Ruder, 2018).

    The classifier and the layers of the head learn at the full learning rate of the optimizer, the last stage at
    `decay` times that rate, the stage before it at `decay ** 2` times, and so on down to the stem. Layers that you add
    after the model learn at the full rate. Weight decay uses the full rate for every layer.

    Args:
        optimizer: A Keras optimizer that has not been used yet, such as `keras.optimizers.AdamW(1e-4)`, its name, or
            its serialized configuration. Adadelta, Adagrad, Adam, Adamax, AdamW, Lion, RMSprop and SGD are supported.
        model: The model that you train: a model of this library, or a model that contains one.
        decay: Ratio between the learning rates of a stage and the next stage, in (0, 1]; 1 trains all stages at the
            full rate.

    Returns:
        A Keras optimizer to pass to `compile`. It is saved with the model; run `import mobilenet_zoo` before you load
        the model.

    Raises:
        ValueError: The optimizer is not supported, `decay` is out of range, or the model has no stages.
    """
    decay = number("decay", decay, 0, 1, low_open=True)
    original: Any = keras.optimizers.get(optimizer)
    base = next((name for name in _OPTIMIZERS if type(original).__name__ == name), None)
    if base is None:
        raise ArgumentError(
            f"optimizer {type(original).__name__} doesn't support layer-wise learning rates. "
            f"Allowed: {', '.join(_OPTIMIZERS)}."
        )
    return _OPTIMIZERS[base].from_config(original.get_config() | {"rates": layer_rates(model, decay)})


def freeze_batch_norm(model: keras.Model, frozen: bool = True) -> int:
    """Freeze the batch norm of a model and nothing else, or unfreeze it.

    A frozen batch norm keeps its scale, offset and moving statistics, and normalizes with them in training as in
    inference, like a `keras.layers.BatchNormalization` with `trainable = False`. The rest of the model is not
    affected. Use it to fine-tune with small batches, whose statistics are noisy.

    As with timm's `freeze_batch_norm_2d`, batch norm stays frozen when you later set `trainable` to True, for example
    between the phases of fine-tuning. The setting is kept in the files that `save` and `save_pretrained` write, in
    clones, and in the models that `reset_classifier` returns; files that contain only weights don't store it. Keras's
    own `BatchNormalization` layers have only `trainable`, so they are unfrozen when you set `trainable` to True on the
    model.

    Args:
        model: A model, with or without nested models, or a layer of a model. It is changed in place; call `compile`
            again afterwards.
        frozen: Whether to freeze batch norm; False unfreezes it.

    Returns:
        The number of layers with batch norm: blocks and convolutions of this library, and
        `keras.layers.BatchNormalization` layers.

    Raises:
        ValueError: `model` is not a Keras model or layer, or has no batch norm, as after `fuse`.
    """
    frozen = flag("frozen", frozen)
    if not isinstance(model, keras.layers.Layer):
        raise ArgumentError(f"model of type {type(model).__name__} is not allowed: pass a keras.Model or a layer.")
    layers = [model, *all_layers(model)]
    inside_blocks = {layer for block in layers if isinstance(block, Block) for layer in all_layers(block)}
    norm_layers = [layer for layer in layers if _has_batch_norm(layer) and layer not in inside_blocks]
    if not norm_layers:
        raise ArgumentError(f"{model.name} has no batch norm: freeze_batch_norm would change nothing.")
    # Layers inside a frozen layer stay frozen.
    inside_frozen = {inner for layer in layers if not layer.trainable for inner in all_layers(layer)}
    for layer in norm_layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            layer.norm_trainable = not frozen
        elif frozen or layer not in inside_frozen:
            layer.trainable = not frozen
    return len(norm_layers)


def _has_batch_norm(layer):
    if isinstance(layer, (Block, NormActivation)):
        return layer.normalization == "batch"
    return isinstance(layer, keras.layers.BatchNormalization)
