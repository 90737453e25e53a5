"""Evaluation with the moving average of the weights that an optimizer keeps (EMA)."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from mobilenet_common.internals.keras_internals import batches_seen, moving_averages
from mobilenet_zoo.training.state import numpy_of


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Replace the model's weights by their moving averages within this context, and restore them exactly afterwards.

    Keras's `SwapEMAWeights` swaps by adding and subtracting under TensorFlow, which rounds. The context does nothing if
    the optimizer keeps no averages or hasn't made a step yet.

    Args:
        model: A compiled model.
    """
    pairs = _weights_and_averages(model)
    values = [numpy_of(variable) for variable, _ in pairs]
    for variable, average in pairs:
        # Assign a copy: under JAX, both variables would share one array, which evaluation may donate.
        variable.assign(numpy_of(average))
    try:
        yield
    finally:
        for (variable, _), value in zip(pairs, values, strict=True):
            variable.assign(value)


class EvaluateAverages(keras.callbacks.Callback):
    """Evaluates with the averaged weights, both during `fit` and in `evaluate`.

    After `fit`, the model has its own weights, so that another `fit` can continue from them; `averaged_weights` gives
    access to the averages. Keras's own optimizers overwrite the weights with the averages instead.
    """

    def __init__(self):
        super().__init__()
        self._context: contextlib.AbstractContextManager | None = None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._context = averaged_weights(self.model)
        self._context.__enter__()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._context is not None:
            self._context.__exit__(None, None, None)
            self._context = None


def _weights_and_averages(model):
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # Unwrap float16's LossScaleOptimizer.
    accumulation_steps = optimizer.gradient_accumulation_steps or 1
    if not optimizer.use_ema or int(numpy_of(batches_seen(optimizer))) < accumulation_steps:
        return []
    return moving_averages(optimizer)
