"""What fine-tuning does differently from training: frozen batch norm, and learning rates by layer."""

from typing import Any

import keras

from mobilenet_common.errors import ArgumentError, flag, number
from mobilenet_common.layers import NormActivation
from mobilenet_common.layers.block import Block
from mobilenet_common.nesting import all_layers
from mobilenet_zoo.layer_rates import RatesByLayer, layer_rates

_SUFFIX = "WithRates"


class _WithRates(RatesByLayer):
    """Multiplies the learning rate of each variable by the factor of its layer."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.rate_factor(variable))


def _with_rates(optimizer):
    name = optimizer.__name__ + _SUFFIX
    made = type(name, (_WithRates, optimizer), {"__doc__": f"{optimizer.__name__} with rates by layer."})
    return keras.saving.register_keras_serializable(package="mobilenet")(made)


# Each is a class of its own that is known by name, so that compiled models load again.
_OPTIMIZERS = {
    name: _with_rates(getattr(keras.optimizers, name))
    for name in ("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "Lion", "RMSprop", "SGD")
}


def discriminative_rates(
    optimizer: str | dict | keras.optimizers.Optimizer, model: keras.Model, decay: float = 0.7
) -> keras.optimizers.Optimizer:
    """Return an optimizer that trains each stage more slowly than the next (Howard and Ruder, 2018).

    The classifier and the layers of the head learn at the optimizer's own rate, the last stage at `decay` times that,
    the one before at `decay ** 2` times, and so on to the stem. Layers of your own behind the model learn at the full
    rate. Weight decay keeps the optimizer's own rate.

    Args:
        optimizer: One of Keras's that has not run yet, such as `keras.optimizers.AdamW(1e-4)`, or its name.
        model: A model of this library, or one around it: pass the model that is trained.
        decay: In (0, 1]; 1 changes nothing.

    Returns:
        An optimizer for `compile`. It is saved with the model, and loads after `import mobilenet_zoo`.

    Raises:
        ValueError: Another optimizer, a decay out of its range, or a model without stages.
    """
    decay = number("decay", decay, 0, 1, low_open=True)
    own: Any = keras.optimizers.get(optimizer)
    base = next((name for name in _OPTIMIZERS if type(own).__name__ == name), None)
    if base is None:
        raise ArgumentError(f"A {type(own).__name__} can't have rates by layer. Allowed: {', '.join(_OPTIMIZERS)}.")
    return _OPTIMIZERS[base].from_config(own.get_config() | {"rates": layer_rates(model, decay)})


def freeze_batch_norm(model: keras.Model, frozen: bool = True) -> int:
    """Freeze all batch norm of a model, and nothing else, or let it learn again.

    Frozen batch norm keeps its scale, its offset and its moving statistics, and normalizes by them in training as in
    inference: what `trainable = False` does to Keras's `BatchNormalization`. Everything around it learns. Use it to
    fine-tune with small batches, whose own statistics say little.

    As after timm's `freeze_batch_norm_2d`, it stays frozen when `trainable` is set to True later on, such as between
    the phases of fine-tuning. It stays so in the files that `save` and `save_pretrained` write, in clones, and in what
    `reset_classifier` returns; files of weights alone don't have it. Layers of Keras's own `BatchNormalization` have
    nothing but `trainable`, so they thaw when it is set to True on the model.

    Args:
        model: A model, with models inside it or not, or a layer of one. It is changed in place; `compile` it again
            afterwards.
        frozen: False lets batch norm learn again.

    Returns:
        How many layers were set: blocks and convolutions of this library, and `keras.layers.BatchNormalization`.

    Raises:
        ValueError: There is no batch norm in `model`, such as in one that `fuse` made.
    """
    frozen = flag("frozen", frozen)
    if not isinstance(model, keras.layers.Layer):
        raise ArgumentError(f"model of type {type(model).__name__} is not allowed: give a keras.Model or a layer.")
    layers = [model, *all_layers(model)]
    inside_blocks = {layer for block in layers if isinstance(block, Block) for layer in all_layers(block)}
    found = [layer for layer in layers if _has_batch_norm(layer) and layer not in inside_blocks]
    if not found:
        raise ArgumentError(f"{model.name} has no batch norm: freeze_batch_norm would change nothing.")
    # What is inside a frozen layer stays frozen.
    held = {inner for layer in layers if not layer.trainable for inner in all_layers(layer)}
    for layer in found:
        if not isinstance(layer, keras.layers.BatchNormalization):
            layer.norm_trainable = not frozen
        elif frozen or layer not in held:
            layer.trainable = not frozen
    return len(found)


def _has_batch_norm(layer):
    if isinstance(layer, (Block, NormActivation)):
        return layer.normalization == "batch"
    return isinstance(layer, keras.layers.BatchNormalization)
