"""Keras's optimizers with what recipes need: selective decay, layer-wise learning rates, averages, accumulation.

Keras's own optimizers do the arithmetic. This module adds what they lack or do differently from the papers:

- Weight decay applies to kernels but not to norms, biases and layer scales. The rule belongs to the class, so a saved
  model keeps it.
- `l2` acts like a term of the loss: its gradient passes through the optimizer, as in the papers of V1 to V3. Keras's
  `weight_decay` is decoupled for every optimizer (Loshchilov and Hutter, 2019), like AdamW's in the paper of V4.
- With gradient accumulation, the averages of the weights are updated once per optimizer step; Keras updates them once
  per batch.
- At the end of `fit`, the model keeps its own weights, and `averaged_weights` gives access to the averages; Keras
  overwrites the weights with the averages.
- With several TensorFlow replicas, gradients are summed before they are clipped, not afterwards.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mobilenet_common.internals.keras_internals import OptimizerHooks, batches_seen, variable_index
from mobilenet_zoo.layer_rates import RatesByLayer, layer_rates
from mobilenet_zoo.training.recipes.recipe import Recipe
from mobilenet_zoo.training.schedules import make_schedule

_TORCH = keras.backend.backend() == "torch"


class _RecipeOptimizer(RatesByLayer, OptimizerHooks):
    """Base class of all recipe optimizers."""

    def __init__(self, *args, l2=0.0, decay_depthwise=True, ema_warmup=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.l2, self.decay_depthwise, self.ema_warmup = l2, decay_depthwise, ema_warmup

    def build(self, variables: Any) -> None:
        super().build(variables)
        self._decays = [decays(variable, self.decay_depthwise) for variable in variables]

    def get_config(self):
        settings = {"l2": self.l2, "decay_depthwise": self.decay_depthwise, "ema_warmup": self.ema_warmup}
        return super().get_config() | settings

    def has_weight_decay(self, variable):
        return self._decays[variable_index(self, variable)]

    def change_gradients(self, gradients, variables):
        if not self.l2:
            return gradients
        return [
            gradient + self.l2 * ops.cast(variable, gradient.dtype) if self.has_weight_decay(variable) else gradient
            for gradient, variable in zip(gradients, variables, strict=True)
        ]

    def update_variables(self, update: Callable, gradients: Any, variables: Any, learning_rate: float) -> None:
        groups = {}
        for gradient, variable in zip(gradients, variables, strict=True):
            factor = self.rate_factor(variable)
            groups.setdefault(factor, ([], []))
            groups[factor][0].append(gradient)
            groups[factor][1].append(variable)
        for factor, (group_gradients, group_variables) in groups.items():
            update(group_gradients, group_variables, learning_rate * factor if factor != 1 else learning_rate)

    def update_averages(self, update, variables_and_averages):
        batches, accumulation_steps = batches_seen(self), self.gradient_accumulation_steps or 1
        steps = ops.cast(ops.floor_divide(batches, accumulation_steps) + 1, "float32")  # Includes the current step.
        momentum = ops.where(steps > 1, self.ema_momentum, 0.0)  # Starts with the weights after the first step.
        if self.ema_warmup:
            momentum = ops.minimum(momentum, (1.0 + steps) / (10.0 + steps))
        momentum = ops.where(ops.equal((batches + 1) % accumulation_steps, 0), momentum, 1.0)
        for variable, average in variables_and_averages:
            kept = ops.cast(momentum, average.dtype)
            average.assign(kept * average + (1 - kept) * variable)

    def finalize_variable_values(self, var_list):
        """Leave the model's own weights in place at the end of `fit`, so that another `fit` can continue from them."""


def decays(variable: Any, depthwise: bool = True) -> bool:
    """Return whether weight decay applies to a variable: it does to kernels, not to norms, biases and layer scales.

    Args:
        variable: A variable of a model.
        depthwise: Whether depthwise kernels `(rows, columns, channels, 1)` decay. Howard et al. (2017), section 3.3,
            found that they need little or no decay, because they have so few parameters.
    """
    shape = tuple(variable.shape)
    is_depthwise = len(shape) == 4 and shape[3] == 1 and shape[:2] != (1, 1)
    return len(shape) >= 2 and (depthwise or not is_depthwise)


def _recipe_optimizer(optimizer):
    # Under PyTorch, Keras's `AdamW(...)` returns an instance of a faster subclass, but subclasses of `AdamW` don't.
    base = type(optimizer.__new__(optimizer)) if _TORCH else optimizer
    name = f"{optimizer.__name__}OfRecipe"
    recipe_optimizer = type(
        name, (_RecipeOptimizer, base), {"__doc__": f"{optimizer.__name__} with the additional options of recipes."}
    )
    return keras.saving.register_keras_serializable(package="mobilenet")(recipe_optimizer)


# Each class is registered under its own name, so that compiled models can be loaded.
_OPTIMIZERS = {
    name.lower(): _recipe_optimizer(getattr(keras.optimizers, name))
    for name in ("AdamW", "Adam", "Lion", "RMSprop", "SGD")
}
_OPTIONS = ("beta_1", "beta_2", "epsilon", "rho", "momentum", "nesterov")


def make_optimizer(
    recipe: Recipe, model: Any, steps_per_epoch: int, *, epochs: int | None = None, learning_rate: float | None = None
) -> keras.optimizers.Optimizer:
    """Return the optimizer of a recipe, for `compile`.

    Args:
        recipe: A `Recipe`.
        model: The model to train. Layer-wise learning rates follow its stages.
        steps_per_epoch: Number of batches per epoch.
        epochs: Number of epochs that the schedule spans, such as `recipe.head_epochs` for the phase that trains the
            head alone; None for `recipe.epochs`.
        learning_rate: Learning rate that replaces the recipe's, such as `recipe.head_learning_rate`; None for the
            recipe's.

    Returns:
        A subclass of one of Keras's optimizers. It is saved with the model, and can be loaded after
        `import mobilenet_zoo.training`.

    Raises:
        ValueError: An argument is out of range, or `layer_decay` is not 1 but the model has no stages.
    """
    settings = recipe.optimizer
    rates = layer_rates(model, settings.layer_decay) if settings.layer_decay != 1 else {}
    options = {name: getattr(settings, name) for name in _OPTIONS if getattr(settings, name) is not None}
    if recipe.ema:
        options |= {"use_ema": True, "ema_momentum": recipe.ema.momentum, "ema_warmup": recipe.ema.warmup}
    return _OPTIMIZERS[settings.name](
        make_schedule(recipe, steps_per_epoch, epochs=epochs, learning_rate=learning_rate),
        weight_decay=settings.weight_decay,
        l2=settings.l2,
        decay_depthwise=settings.decay_depthwise,
        global_clipnorm=settings.clip_norm,
        gradient_accumulation_steps=settings.accumulation_steps if settings.accumulation_steps > 1 else None,
        rates=rates,
        **options,
    )
