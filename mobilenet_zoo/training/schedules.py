"""The learning rate of every step, as a function of the step alone."""

import math

import keras
from keras import ops

from mobilenet_common.errors import ArgumentError, integer, number, one_of

NAMES = ("constant", "cosine", "exponential", "step")


@keras.saving.register_keras_serializable(package="mobilenet")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then a constant rate, half a cosine, or powers of a factor, smooth or in steps.

    Step 0 has the warm-up's first rate, step `warmup_steps` the full one, and what follows counts from there, as in
    optax. Keras hands over the batches seen, also where gradients are accumulated; the schedule counts the
    optimizer's own steps, so that it is the same whether a step's images come at once or in parts.

    Args:
        name: "constant", "cosine", "exponential" (smooth) or "step" (at once; "staircase" in TensorFlow).
        learning_rate: The full rate, positive.
        total_steps: Steps of the optimizer, at least 1; cosine ends there.
        warmup_steps: Steps in which the rate rises, fewer than `total_steps`.
        warmup_learning_rate: The rate at step 0 if there is a warm-up.
        final_learning_rate: Where cosine ends; exponential and step stay at least there.
        decay_rate: The factor of exponential and step, in (0, 1].
        decay_steps: Steps from factor to factor, positive.
        accumulation_steps: Batches that make one step of the optimizer.

    Raises:
        ValueError: An argument is out of its range.
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
            raise ArgumentError(f"warmup_steps={warmup_steps} is not allowed: there are {total_steps} steps in all.")

    def __call__(self, step):
        """Return the rate, float32, at batch `step`, an integer from 0."""
        step = ops.cast(ops.floor_divide(ops.cast(step, "int32"), self.accumulation_steps), "float32")
        after = ops.maximum(step - self.warmup_steps, 0.0)
        if self.name == "constant":
            rate = self.learning_rate * ops.ones_like(step)
        elif self.name == "cosine":
            share = ops.minimum(after / (self.total_steps - self.warmup_steps), 1.0)
            span = self.learning_rate - self.final_learning_rate
            rate = self.final_learning_rate + span * 0.5 * (1.0 + ops.cos(math.pi * share))
        else:
            factors = after / self.decay_steps
            # A hair more, so that a step that ends an interval exactly isn't rounded into the one before.
            factors = ops.floor(factors + 1e-4) if self.name == "step" else factors
            rate = self.learning_rate * ops.exp(factors * math.log(self.decay_rate))
            rate = ops.maximum(rate, self.final_learning_rate)
        if not self.warmup_steps:
            return rate
        rise = self.learning_rate - self.warmup_learning_rate
        rising = self.warmup_learning_rate + rise * step / self.warmup_steps
        return ops.where(step < self.warmup_steps, rising, rate)

    def get_config(self):
        names = (
            "name learning_rate total_steps warmup_steps warmup_learning_rate final_learning_rate decay_rate "
            "decay_steps accumulation_steps"
        )
        return {name: getattr(self, name) for name in names.split()}


def make_schedule(recipe, steps_per_epoch, *, epochs=None, learning_rate=None):
    """Return the learning rate of a recipe's run.

    Args:
        recipe: A `Recipe`.
        steps_per_epoch: Batches of an epoch, at least 1.
        epochs: That the schedule spans; None for the recipe's.
        learning_rate: In place of the recipe's, such as `recipe.head_learning_rate`.

    Returns:
        A `Schedule`. Where `optimizer.learning_rate_per` is set, all its rates are scaled linearly to the images of
        a step (Goyal et al., 2017, section 2.1).
    """
    optimizer, schedule = recipe.optimizer, recipe.schedule
    parts = optimizer.accumulation_steps
    scale = recipe.batch_size * parts / optimizer.learning_rate_per if optimizer.learning_rate_per else 1.0
    epochs = recipe.epochs if epochs is None else epochs
    per_epoch = integer("steps_per_epoch", steps_per_epoch, 1) / parts
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
        parts,
    )
