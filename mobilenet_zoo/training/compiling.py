"""A model made ready for `fit` as a recipe says: optimizer, loss, precision, blocks computed twice to save memory."""

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
    """Return the cross-entropy of a recipe, between probabilities and one-hot (or mixed) targets."""
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
    """Compile a model as a recipe says.

    Args:
        model: Of this library, or a `Distiller`. It computes in `recipe.precision` if it was made so: a create
            function's `dtype=recipe.precision`.
        recipe: A `Recipe`.
        steps_per_epoch: Batches of an epoch.
        epochs: That the schedule spans; None for the recipe's.
        learning_rate: In place of the recipe's; None for it.
        metrics: For `compile`.
        **options: More arguments of `compile`.

    Returns:
        The model. Under mixed_float16 its optimizer scales the loss, and leaves out steps whose gradients overflow.

    Raises:
        ValueError: More than one step an execution under PyTorch, or what `make_optimizer` raises.
    """
    optimizer = make_optimizer(recipe, model, steps_per_epoch, epochs=epochs, learning_rate=learning_rate)
    if recipe.precision == "mixed_float16":  # Keras does so only for models whose own policy says it
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    if recipe.rematerialization:
        rematerialize(model)
    if keras.backend.backend() == "torch":
        if recipe.steps_per_execution > 1:
            raise ArgumentError(
                f"steps_per_execution={recipe.steps_per_execution} is not allowed: under PyTorch Keras has 1 alone."
            )
        options.setdefault("jit_compile", False)  # compiling takes longer than it saves; see the benchmarks
    model.compile(
        optimizer,
        make_loss(recipe),
        metrics=list(metrics),
        steps_per_execution=recipe.steps_per_execution,
        **options,
    )
    return model


def rematerialize(model: keras.Model) -> int:
    """Make the blocks of a model forget what is inside them, and compute it again going backwards (Chen et al., 2016).

    Keras's own `RematScope` can't do it for layers with state: under PyTorch it moves batch norm's statistics twice and
    draws other dropped paths going backwards, and under JAX and TensorFlow it raises. Here a block's state goes in and
    out of the function that runs twice. Inference is as it was, and so is what is saved.

    Args:
        model: Of this library, or one that holds such as layers; changed in place, before `compile`.

    Returns:
        How many blocks do so now.
    """
    count = 0
    for layer in all_layers(model):
        if BLOCK_NAME.fullmatch(layer.name) and "call" not in vars(layer):
            wrap_method(layer, "call", functools.partial(_twice, layer))
            count += 1
    return count


def _twice(layer, run):
    def call(x, training=None):
        if not training:
            return run(x, training=training)
        learned, state = layer.trainable_variables, layer.non_trainable_variables

        def forward(x, *values):
            with keras.StatelessScope(state_mapping=list(zip((*learned, *state), values, strict=True))) as scope:
                y = run(x, training=True)
            return (y, *[scope.get_current_value(variable) for variable in state])

        before = [ops.copy(variable.value) for variable in state]  # PyTorch assigns in place, before it goes backwards
        y, *moved = keras.remat(forward)(x, *[variable.value for variable in learned], *before)
        for variable, value in zip(state, moved, strict=True):
            variable.assign(value)
        return y

    return call
