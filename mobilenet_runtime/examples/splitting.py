"""A part held out of each class."""

import numpy as np

from mobilenet_common.errors import integer, number
from mobilenet_runtime.examples.examples import Data, Examples


def split(examples: Examples, fraction: float = 0.2, seed: int = 0) -> Data:
    """Hold out about `fraction` of each class, drawn by `seed`.

    A class of two images or more has at least one in either part; a single image stays in training.

    Args:
        examples: `Examples`.
        fraction: Fraction that is held out, in [0, 1); 0 holds out none.
        seed: Of the draw, at least 0.

    Returns:
        `Data(train, validation)`, each in the order of `examples`.
    """
    fraction = number("validation_fraction", fraction, 0, 1, high_open=True)
    rng = np.random.default_rng(integer("seed", seed, 0))
    held_out = np.zeros(len(examples), bool)
    for label in range(len(examples.class_names)):
        members = rng.permutation(np.flatnonzero(examples.labels == label))
        if fraction and len(members) > 1:
            held_out[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    return Data(examples.subset(np.flatnonzero(~held_out)), examples.subset(np.flatnonzero(held_out)))
