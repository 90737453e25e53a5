"""Keras's optimizers as a recipe wants them: what decays, rates by layer, averages, accumulated gradients.

Keras's own optimizers do the arithmetic. What they lack, or do otherwise than the papers, is added here:

- Kernels decay; norms, biases and layer scales do not. The rule is in the class, so a saved model keeps it.
- `l2` is a term of the loss, whose gradient the optimizer's own scaling sees, as in the papers of V1 to V3. Keras's
  `weight_decay` is decoupled for every optimizer (Loshchilov and Hutter, 2019), as AdamW's in the paper of V4.
- Where gradients are accumulated, the average of the weights moves once a step. Keras moves it with every batch.
- At the end of `fit` the model keeps its weights: `averaged_weights` gives the average. Keras puts it in their place.
- Over TensorFlow's replicas gradients are summed before they are clipped, not after.
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


class _Trained(RatesByLayer, OptimizerHooks):
    """What every optimizer of a recipe has in common."""

    def __init__(self, *args, l2=0.0, decay_depthwise=True, ema_warmup=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.l2, self.decay_depthwise, self.ema_warmup = l2, decay_depthwise, ema_warmup

    def build(self, variables: Any) -> None:
        super().build(variables)
        self._decays = [decays(variable, self.decay_depthwise) for variable in variables]

    def get_config(self):
        own = {"l2": self.l2, "decay_depthwise": self.decay_depthwise, "ema_warmup": self.ema_warmup}
        return super().get_config() | own

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
        batches, parts = batches_seen(self), self.gradient_accumulation_steps or 1
        steps = ops.cast(ops.floor_divide(batches, parts) + 1, "float32")  # with this one
        momentum = ops.where(steps > 1, self.ema_momentum, 0.0)  # the average begins with the weights of the first step
        if self.ema_warmup:
            momentum = ops.minimum(momentum, (1.0 + steps) / (10.0 + steps))
        momentum = ops.where(ops.equal((batches + 1) % parts, 0), momentum, 1.0)
        for variable, average in variables_and_averages:
            kept = ops.cast(momentum, average.dtype)
            average.assign(kept * average + (1 - kept) * variable)

    def finalize_variable_values(self, var_list):
        """Leave the model its own weights at the end of `fit`, since another one may go on with them."""


def decays(variable: Any, depthwise: bool = True) -> bool:
    """Return whether weight decay applies to a variable: to kernels, not to norms, biases and layer scales.

    Args:
        variable: Of a model.
        depthwise: Whether depthwise kernels `(rows, columns, channels, 1)` decay. Howard et al. (2017), section 3.3,
            found that they need little or none, having so few parameters.
    """
    shape = tuple(variable.shape)
    is_depthwise = len(shape) == 4 and shape[3] == 1 and shape[:2] != (1, 1)
    return len(shape) >= 2 and (depthwise or not is_depthwise)


def _trained(optimizer):
    # Under PyTorch Keras makes `AdamW(...)` an object of a faster subclass, but not of classes that derive from AdamW.
    base = type(optimizer.__new__(optimizer)) if _TORCH else optimizer
    name = f"{optimizer.__name__}OfRecipe"
    made = type(name, (_Trained, base), {"__doc__": f"{optimizer.__name__} as a recipe wants it."})
    return keras.saving.register_keras_serializable(package="mobilenet")(made)


# Each is a class of its own that is known by name, so that compiled models load again.
_OPTIMIZERS = {
    name.lower(): _trained(getattr(keras.optimizers, name)) for name in ("AdamW", "Adam", "Lion", "RMSprop", "SGD")
}
_OWN = ("beta_1", "beta_2", "epsilon", "rho", "momentum", "nesterov")


def make_optimizer(
    recipe: Recipe, model: Any, steps_per_epoch: int, *, epochs: int | None = None, learning_rate: float | None = None
) -> keras.optimizers.Optimizer:
    """Return the optimizer of a recipe, for `compile`.

    Args:
        recipe: A `Recipe`.
        model: The model that it will train; rates by layer follow its stages.
        steps_per_epoch: Batches of an epoch.
        epochs: That the schedule spans; None for the recipe's. The phase of the head has `recipe.head_epochs`.
        learning_rate: In place of the recipe's, such as `recipe.head_learning_rate`.

    Returns:
        One of Keras's optimizers, in a subclass that is saved with the model and loads after
        `import mobilenet_zoo.training`.

    Raises:
        ValueError: An argument is out of its range, or the model has no stages and the recipe wants rates by layer.
    """
    own = recipe.optimizer
    rates = layer_rates(model, own.layer_decay) if own.layer_decay != 1 else {}
    given = {name: getattr(own, name) for name in _OWN if getattr(own, name) is not None}
    if recipe.ema:
        given |= {"use_ema": True, "ema_momentum": recipe.ema.momentum, "ema_warmup": recipe.ema.warmup}
    return _OPTIMIZERS[own.name](
        make_schedule(recipe, steps_per_epoch, epochs=epochs, learning_rate=learning_rate),
        weight_decay=own.weight_decay,
        l2=own.l2,
        decay_depthwise=own.decay_depthwise,
        global_clipnorm=own.clip_norm,
        gradient_accumulation_steps=own.accumulation_steps if own.accumulation_steps > 1 else None,
        rates=rates,
        **given,
    )
