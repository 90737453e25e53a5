"""Split examples into a training set and a validation set."""

import numpy as np

from mobilenet_common.errors import integer, number
from mobilenet_runtime.examples.examples import Data, Examples


def split(examples: Examples, fraction: float = 0.2, seed: int = 0) -> Data:
    """Split examples at random into a training set and a validation set, class by class.

    Each class with at least two images has at least one image in each set. The image of a class with a single image is
    in the training set.

    Args:
        examples: The `Examples` to split.
        fraction: Fraction of each class that goes into the validation set, in [0, 1).
        seed: Seed of the random choice, at least 0.

    Returns:
        `Data(train, validation)`, each in the order of `examples`. With `fraction=0` the validation set is empty.
    """
    fraction = number("validation_fraction", fraction, 0, 1, high_open=True)
    rng = np.random.default_rng(integer("seed", seed, 0))
    is_validation = np.zeros(len(examples), bool)
    for label in range(len(examples.class_names)):
        members = rng.permutation(np.flatnonzero(examples.labels == label))
        if fraction and len(members) > 1:
            is_validation[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    return Data(examples.subset(np.flatnonzero(~is_validation)), examples.subset(np.flatnonzero(is_validation)))
