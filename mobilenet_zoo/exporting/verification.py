"""Whether a file computes what its model does, and if not, where it begins to deviate."""

import dataclasses

import numpy as np

# How far a right file may be from the model, as a fraction of the largest output. Rounding to 8 bits has no such bound.
TOLERANCES = {None: 2e-4, "float16": 5e-2}
_LEAST_LIKENESS = 0.8  # of the outputs of an 8-bit file to the model's, as a cosine


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Answers of a file next to the model's.

    Attributes:
        deviation: Largest difference, as a fraction of the largest value, over all outputs.
        likeness: Mean cosine between the two answers to an image, the least of all outputs.
        agreement: Fraction of the images with the same first class, or None for features.
        accuracy, expected_accuracy: Share that file and model get right, or None without labels.
        images: How many there were.
    """

    deviation: float
    likeness: float
    agreement: float | None
    accuracy: float | None
    expected_accuracy: float | None
    images: int

    def is_right(self, quantization, allowed=None):
        """Return whether the file may pass for the model."""
        if not np.isfinite(self.deviation):
            return False
        if allowed is None:
            allowed = TOLERANCES.get(quantization)
        return self.likeness >= _LEAST_LIKENESS if allowed is None else self.deviation <= allowed


def compare(found, expected, labels=None):
    """Return a `Comparison` of lists of arrays, each `(images, ...)`."""
    agreement = accuracy = expected_accuracy = None
    if len(expected) == 1 and expected[0].ndim == 2 and expected[0].shape[1] > 1:
        classes, expected_classes = found[0].argmax(1), expected[0].argmax(1)
        agreement = float((classes == expected_classes).mean())
        if labels is not None:
            accuracy = float((classes == labels).mean())
            expected_accuracy = float((expected_classes == labels).mean())
    pairs = list(zip(found, expected, strict=True))
    deviations, likenesses = [deviation(*pair) for pair in pairs], [_likeness(*pair) for pair in pairs]
    return Comparison(max(deviations), min(likenesses), agreement, accuracy, expected_accuracy, len(expected[0]))


def deviation(found, expected):
    """Return the largest difference as a fraction of the largest expected value."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def first_departure(found, expected, allowed):
    """Return the first layer of `expected`, `{name: output}`, that deviates in `found` by more than allowed.

    Returns:
        `(name, deviation)`, or None.
    """
    for name, answer in expected.items():
        if name in found:
            own = found[name]
            value = deviation(own.reshape(answer.shape) if own.size == answer.size else own, answer)
            if not value <= allowed:
                return name, value
    return None


def _likeness(found, expected):
    found, expected = (array.reshape(len(array), -1).astype("float64") for array in (found, expected))
    if found.shape != expected.shape or not np.isfinite(found).all():
        return -1.0
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(1) / np.maximum(lengths, 1e-30)).mean())
