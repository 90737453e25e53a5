"""Learning rate schedules, computed from the step number alone."""

import math

import keras
from keras import ops

from mobilenet_common.errors import ArgumentError, integer, number, one_of

NAMES = ("constant", "cosine", "exponential", "step")


@keras.saving.register_keras_serializable(package="mobilenet")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate schedule with an optional linear warm-up.

    After the warm-up, the rate is constant, follows half a cosine, or is multiplied by a factor at regular intervals
    (smoothly or in steps). Step 0 has the rate at which the warm-up starts, step `warmup_steps` has the full rate, and
    the decay counts from there, as in optax. Keras passes the number of batches to a schedule, even when gradients are
    accumulated. This schedule converts it to optimizer steps, so that accumulation doesn't change the rates.

    Args:
        name: "constant", "cosine", "exponential" (smooth) or "step" (in steps, which TensorFlow calls "staircase").
        learning_rate: Full learning rate, a positive number.
        total_steps: Number of optimizer steps, at least 1. The cosine ends at this step.
        warmup_steps: Number of optimizer steps of the warm-up, fewer than `total_steps`.
        warmup_learning_rate: Learning rate at step 0 if there is a warm-up, at least 0.
        final_learning_rate: Learning rate at the end of "cosine", and the lower bound of "exponential" and "step".
        decay_rate: Factor of "exponential" and "step", in (0, 1].
        decay_steps: Number of optimizer steps after which the rate is multiplied by `decay_rate` once, a positive
            number.
        accumulation_steps: Number of batches per optimizer step, at least 1.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        name,
        learning_rate,
        total_steps,
        warmup_steps=0,
        warmup_learning_rate=0.0,
        final_learning_rate=0.0,
        decay_rate=1.0,
        decay_steps=1,
        accumulation_steps=1,
    ):
        super().__init__()
        self.name = one_of("name", name, NAMES)
        self.learning_rate = number("learning_rate", learning_rate, 0, math.inf, low_open=True, high_open=True)
        self.total_steps = integer("total_steps", total_steps, 1)
        self.warmup_steps = integer("warmup_steps", warmup_steps, 0)
        self.warmup_learning_rate = number("warmup_learning_rate", warmup_learning_rate, 0, math.inf, high_open=True)
        self.final_learning_rate = number("final_learning_rate", final_learning_rate, 0, math.inf, high_open=True)
        self.decay_rate = number("decay_rate", decay_rate, 0, 1, low_open=True)
        self.decay_steps = number("decay_steps", decay_steps, 0, math.inf, low_open=True, high_open=True)
        self.accumulation_steps = integer("accumulation_steps", accumulation_steps, 1)
        if self.warmup_steps >= self.total_steps and self.warmup_steps:
            raise ArgumentError(
                f"warmup_steps={warmup_steps} is not allowed: it must be less than total_steps={total_steps}."
            )

    def __call__(self, step):
        """Return the float32 learning rate at batch `step`, an integer that counts from 0."""
        step = ops.cast(ops.floor_divide(ops.cast(step, "int32"), self.accumulation_steps), "float32")
        steps_after_warmup = ops.maximum(step - self.warmup_steps, 0.0)
        if self.name == "constant":
            rate = self.learning_rate * ops.ones_like(step)
        elif self.name == "cosine":
            progress = ops.minimum(steps_after_warmup / (self.total_steps - self.warmup_steps), 1.0)
            decay_span = self.learning_rate - self.final_learning_rate
            rate = self.final_learning_rate + decay_span * 0.5 * (1.0 + ops.cos(math.pi * progress))
        else:
            exponent = steps_after_warmup / self.decay_steps
            # Add a little, so that rounding doesn't put a step at the start of an interval into the previous interval.
            exponent = ops.floor(exponent + 1e-4) if self.name == "step" else exponent
            rate = self.learning_rate * ops.exp(exponent * math.log(self.decay_rate))
            rate = ops.maximum(rate, self.final_learning_rate)
        if not self.warmup_steps:
            return rate
        warmup_span = self.learning_rate - self.warmup_learning_rate
        warmup_rate = self.warmup_learning_rate + warmup_span * step / self.warmup_steps
        return ops.where(step < self.warmup_steps, warmup_rate, rate)

    def get_config(self):
        names = (
            "name learning_rate total_steps warmup_steps warmup_learning_rate final_learning_rate decay_rate "
            "decay_steps accumulation_steps"
        )
        return {name: getattr(self, name) for name in names.split()}


def make_schedule(recipe, steps_per_epoch, *, epochs=None, learning_rate=None):
    """Return the learning rate schedule of a recipe.

    Args:
        recipe: A `Recipe`.
        steps_per_epoch: Number of batches per epoch, at least 1.
        epochs: Number of epochs that the schedule spans; None for the recipe's.
        learning_rate: Learning rate that replaces the recipe's, such as `recipe.head_learning_rate`; None for the
            recipe's.

    Returns:
        A `Schedule`. If the recipe sets `optimizer.learning_rate_per`, all rates are scaled linearly with the number
        of images per step (Goyal et al., 2017, section 2.1).
    """
    optimizer, schedule = recipe.optimizer, recipe.schedule
    accumulation_steps = optimizer.accumulation_steps
    scale = recipe.batch_size * accumulation_steps / optimizer.learning_rate_per if optimizer.learning_rate_per else 1.0
    epochs = recipe.epochs if epochs is None else epochs
    per_epoch = integer("steps_per_epoch", steps_per_epoch, 1) / accumulation_steps
    total = max(1, math.ceil(epochs * per_epoch))
    return Schedule(
        schedule.name,
        (optimizer.learning_rate if learning_rate is None else learning_rate) * scale,
        total,
        min(round(schedule.warmup_epochs * per_epoch), total - 1),
        schedule.warmup_learning_rate * scale,
        schedule.final_learning_rate * scale,
        schedule.decay_rate,
        schedule.decay_epochs * per_epoch,
        accumulation_steps,
    )
