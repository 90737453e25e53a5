"""The average of the weights that an optimizer keeps: put into the model for evaluation, and taken out again."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from mobilenet_common.internals.keras_internals import batches_seen, moving_averages
from mobilenet_zoo.training.state import numpy_of


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Give the model the average of its weights in this scope, and its own again afterwards, to the last bit.

    Keras's `SwapEMAWeights` swaps by adding and subtracting under TensorFlow, which rounds. Nothing happens to a model
    whose optimizer keeps no average, or has made no step yet.

    Args:
        model: A compiled one.
    """
    pairs = _pairs(model)
    own = [numpy_of(variable) for variable, _ in pairs]
    for variable, average in pairs:
        # A copy: under JAX two variables would share an array, which evaluation gives away with the first.
        variable.assign(numpy_of(average))
    try:
        yield
    finally:
        for (variable, _), value in zip(pairs, own, strict=True):
            variable.assign(value)


class EvaluateAverages(keras.callbacks.Callback):
    """Evaluates with the average of the weights, within `fit` and without.

    After `fit` the model has its own weights, so that another one goes on with them: take the average by
    `averaged_weights`. Keras's own optimizers put it in their place for good.
    """

    def __init__(self):
        super().__init__()
        self._inside: contextlib.AbstractContextManager | None = None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._inside = averaged_weights(self.model)
        self._inside.__enter__()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._inside is not None:
            self._inside.__exit__(None, None, None)
            self._inside = None


def _pairs(model):
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # float16 scales the loss round it
    parts = optimizer.gradient_accumulation_steps or 1
    if not optimizer.use_ema or int(numpy_of(batches_seen(optimizer))) < parts:
        return []
    return moving_averages(optimizer)
