"""Learning rates by layer: the factor of each, and what an optimizer needs to keep and apply them."""

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
    """Return `{layer: factor}` of the learning rates under which each stage learns more slowly than the next.

    The last stage has `decay`, the one before `decay ** 2`, and so on to the stem. Other layers learn at the full rate
    and are left out.

    Raises:
        ValueError: A model without stages.
    """
    blocks = [(layer.name, match) for layer in all_layers(model) if (match := BLOCK_NAME.fullmatch(layer.name))]
    stages = {name: int(match[1]) for name, match in blocks}
    if not stages:
        raise ArgumentError(
            f"{model.name} has no layers called stage1_block1 and so on: it is no model of this library."
        )
    last = max(stages.values())
    rates = {layer: decay ** (last - stage + 1) for layer, stage in stages.items()}
    rates["stem"] = decay ** (last + 1)
    return rates


class RatesByLayer(_Base):
    """Keeps `rates`, `{layer: factor}`, with an optimizer. List it before one of Keras's optimizers among the bases."""

    def __init__(self, *args, rates=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.rates = {str(layer): float(rate) for layer, rate in (rates or {}).items()}

    def build(self, variables: Any) -> None:
        super().build(variables)
        self._factors = [self._rate_of(variable) for variable in variables]

    def _rate_of(self, variable):
        """Return the factor of a variable's layer, at any depth, or 1 where it has none."""
        return next((self.rates[name] for name in variable.path.split("/") if name in self.rates), 1.0)

    def rate_factor(self, variable: Any) -> float:
        """Return what the learning rate of `variable` is multiplied by."""
        return self._factors[variable_index(self, variable)]  # TensorFlow hands over a variable of its own

    def get_config(self):
        return super().get_config() | {"rates": self.rates}
