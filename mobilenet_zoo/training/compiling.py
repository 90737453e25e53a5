"""Compiling a model for `fit` as a recipe describes: optimizer, loss, precision and rematerialization."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mobilenet_common.checkpoints.layouts.base import BLOCK_NAME
from mobilenet_common.errors import ArgumentError
from mobilenet_common.internals.keras_internals import wrap_method
from mobilenet_common.nesting import all_layers
from mobilenet_zoo.training.optimization import make_optimizer
from mobilenet_zoo.training.recipes.recipe import Recipe


def make_loss(recipe: Recipe) -> keras.losses.Loss:
    """Return the recipe's loss: cross-entropy between one-hot (or mixed) targets and predicted probabilities."""
    return keras.losses.CategoricalCrossentropy(label_smoothing=recipe.loss.label_smoothing)


def compile_model(
    model: Any,
    recipe: Recipe,
    steps_per_epoch: int,
    *,
    epochs: int | None = None,
    learning_rate: float | None = None,
    metrics: Sequence[Any] = ("accuracy",),
    **options: Any,
) -> Any:
    """Compile a model as a recipe describes.

    Args:
        model: A model of this library, or a `Distiller`. It computes in `recipe.precision` only if it was created with
            `dtype=recipe.precision`.
        recipe: A `Recipe`.
        steps_per_epoch: Number of batches per epoch.
        epochs: Number of epochs that the schedule spans; None for the recipe's.
        learning_rate: Learning rate that replaces the recipe's; None for the recipe's.
        metrics: Metrics for `compile`.
        **options: Further arguments of `compile`.

    Returns:
        The model. Under mixed_float16, its optimizer scales the loss and skips steps whose gradients overflow.

    Raises:
        ValueError: `recipe.steps_per_execution` is more than 1 under PyTorch, or `make_optimizer` raises an error.
    """
    optimizer = make_optimizer(recipe, model, steps_per_epoch, epochs=epochs, learning_rate=learning_rate)
    if recipe.precision == "mixed_float16":  # Keras scales the loss only if the model's own policy is mixed_float16.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    if recipe.rematerialization:
        rematerialize(model)
    if keras.backend.backend() == "torch":
        if recipe.steps_per_execution > 1:
            raise ArgumentError(
                f"steps_per_execution={recipe.steps_per_execution} is not allowed: under PyTorch, it must be 1."
            )
        options.setdefault("jit_compile", False)  # Compiling takes longer than it saves; see docs/benchmarks.md.
    model.compile(
        optimizer,
        make_loss(recipe),
        metrics=list(metrics),
        steps_per_execution=recipe.steps_per_execution,
        **options,
    )
    return model


def rematerialize(model: keras.Model) -> int:
    """Store only the inputs of a model's blocks, and recompute the blocks in the backward pass (Chen et al., 2016).

    Keras's own `RematScope` doesn't support layers with state: under PyTorch, it updates batch norm's statistics twice
    and draws different dropped paths in the backward pass; under JAX and TensorFlow, it raises an error. Here, a
    block's state is passed into and out of the function that is run twice. Inference and saving don't change.

    Args:
        model: A model of this library, or a model that contains its layers. It is modified in place; call this
            function before `compile`.

    Returns:
        The number of blocks that are now recomputed.
    """
    count = 0
    for layer in all_layers(model):
        if BLOCK_NAME.fullmatch(layer.name) and "call" not in vars(layer):
            wrap_method(layer, "call", functools.partial(_rematerialized, layer))
            count += 1
    return count


def _rematerialized(layer, call_layer):
    def call(x, training=None):
        if not training:
            return call_layer(x, training=training)
        trainable, state = layer.trainable_variables, layer.non_trainable_variables

        def forward(x, *values):
            with keras.StatelessScope(state_mapping=list(zip((*trainable, *state), values, strict=True))) as scope:
                y = call_layer(x, training=True)
            return (y, *[scope.get_current_value(variable) for variable in state])

        initial_state = [ops.copy(variable.value) for variable in state]  # PyTorch updates state in place.
        y, *new_state = keras.remat(forward)(x, *[variable.value for variable in trainable], *initial_state)
        for variable, value in zip(state, new_state, strict=True):
            variable.assign(value)
        return y

    return call
