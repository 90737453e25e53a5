"""Learning rates that differ from layer to layer: what has learned long ago moves less than what is fresh."""

import keras

from mobilenet_common.checkpoints.layouts.base import BLOCK_NAME
from mobilenet_common.errors import number

_SUFFIX = "WithRates"


class _WithRates:
    """Multiplies the learning rate of each variable by the factor of its layer."""

    def __init__(self, *args, rates, **kwargs):
        super().__init__(*args, **kwargs)
        self.rates = {str(layer): float(rate) for layer, rate in rates.items()}

    def build(self, variables):
        super().build(variables)
        self._factors = [self.rates.get(variable.path.partition("/")[0], 1.0) for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        factor = self._factors[self._get_variable_index(variable)]  # TensorFlow hands over a variable of its own
        super().update_step(gradient, variable, learning_rate * factor)

    def get_config(self):
        return super().get_config() | {"rates": self.rates}


def _with_rates(optimizer):
    name = optimizer.__name__ + _SUFFIX
    made = type(name, (_WithRates, optimizer), {"__doc__": f"{optimizer.__name__} with rates by layer."})
    return keras.saving.register_keras_serializable(package="mobilenet")(made)


# Each is a class of its own that is known by name, so that compiled models load again.
_OPTIMIZERS = {
    name: _with_rates(getattr(keras.optimizers, name))
    for name in ("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "Lion", "RMSprop", "SGD")
}


def discriminative_rates(optimizer, model, decay=0.7):
    """An optimizer that trains each stage of a model more slowly than the one behind it (Howard and Ruder, 2018).

    The classifier and the layers of the head learn at the optimizer's own rate, the last stage at `decay` times that,
    the one before at `decay ** 2` times, and so on to the stem. Layers of your own behind the model learn at the full
    rate. Weight decay keeps the optimizer's own rate.

    Args:
        optimizer: One of Keras's that has not run yet, such as `keras.optimizers.AdamW(1e-4)`, or its name.
        model: A model of this library; a fine-tuned one as a whole, not one that is a layer of another.
        decay: In (0, 1]; 1 changes nothing.

    Returns:
        An optimizer for `compile`. It is saved with the model, and loads after `import mobilenet_zoo`.

    Raises:
        ValueError: Another optimizer, a decay out of its range, or a model without stages.
    """
    number("decay", decay, 0, 1, low_open=True)
    optimizer = keras.optimizers.get(optimizer)
    base = next((name for name in _OPTIMIZERS if type(optimizer).__name__ == name), None)
    if base is None:
        raise ValueError(f"A {type(optimizer).__name__} can't have rates by layer. Allowed: {', '.join(_OPTIMIZERS)}.")
    stages = {layer.name: int(match[1]) for layer in model.layers if (match := BLOCK_NAME.fullmatch(layer.name))}
    if not stages:
        raise ValueError(f"{model.name} has no layers called stage1_block1 and so on: it is no model of this library.")
    last = max(stages.values())
    rates = {layer: decay ** (last - stage + 1) for layer, stage in stages.items()}
    rates["stem"] = decay ** (last + 1)
    return _OPTIMIZERS[base].from_config(optimizer.get_config() | {"rates": rates})
