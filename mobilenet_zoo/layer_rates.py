"""Layer-wise learning rates: the factor of each layer, and an optimizer mixin that stores the factors."""

from typing import TYPE_CHECKING, Any

import keras

from mobilenet_common.checkpoints.layouts.base import BLOCK_NAME
from mobilenet_common.errors import ArgumentError
from mobilenet_common.internals.keras_internals import variable_index
from mobilenet_common.nesting import all_layers

if TYPE_CHECKING:
    _Base: Any = keras.optimizers.Optimizer
else:
    _Base = object


def layer_rates(model: keras.Model, decay: float) -> dict[str, float]:
    """Return learning rate factors, `{layer name: factor}`, with which each stage learns more slowly than the next.

    The last stage has the factor `decay`, the stage before it `decay ** 2`, and so on down to the stem. Other layers
    learn at the full rate and are not in the dict.

    Raises:
        ValueError: The model has no stages.
    """
    blocks = [(layer.name, match) for layer in all_layers(model) if (match := BLOCK_NAME.fullmatch(layer.name))]
    stages = {name: int(match[1]) for name, match in blocks}
    if not stages:
        raise ArgumentError(
            f"{model.name} has no layers with names such as stage1_block1: it is not a model of this library."
        )
    last = max(stages.values())
    rates = {layer: decay ** (last - stage + 1) for layer, stage in stages.items()}
    rates["stem"] = decay ** (last + 1)
    return rates


class RatesByLayer(_Base):
    """Optimizer mixin that stores a learning rate factor for each layer. List it before a Keras optimizer.

    Args:
        rates: `{layer name: factor}`; layers that are not in it learn at the full rate.
    """

    def __init__(self, *args, rates=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.rates = {str(layer): float(rate) for layer, rate in (rates or {}).items()}

    def build(self, variables: Any) -> None:
        super().build(variables)
        self._factors = [self._factor_of(variable) for variable in variables]

    def _factor_of(self, variable):
        """Return the factor of the layer that contains `variable`, at any depth, or 1 if no such layer has a factor."""
        return next((self.rates[name] for name in variable.path.split("/") if name in self.rates), 1.0)

    def rate_factor(self, variable: Any) -> float:
        """Return the factor by which the learning rate of `variable` is multiplied."""
        # TensorFlow passes a different variable object than `build` received, so look up the factor by index.
        return self._factors[variable_index(self, variable)]

    def get_config(self):
        return super().get_config() | {"rates": self.rates}
