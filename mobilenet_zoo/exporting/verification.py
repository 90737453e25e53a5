"""Compare the outputs of a file with the model's, and find the first layer that deviates."""

import dataclasses

import numpy as np

# Largest allowed deviation, as a fraction of the largest output. Rounding to 8 bits has no such limit.
TOLERANCES = {None: 2e-4, "float16": 5e-2}
_MIN_COSINE_SIMILARITY = 0.8  # between the outputs of an 8-bit file and the model's


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparison of a file's outputs with the model's.

    Attributes:
        deviation: Largest difference, as a fraction of the largest value; the largest over all outputs.
        cosine_similarity: Cosine similarity, averaged over the images; the smallest over all outputs.
        agreement: Fraction of the images with the same predicted class, or None for features.
        accuracy, expected_accuracy: Accuracy of the file and of the model, or None without labels.
        images: Number of images that were compared.
    """

    deviation: float
    cosine_similarity: float
    agreement: float | None
    accuracy: float | None
    expected_accuracy: float | None
    images: int

    def is_right(self, quantization, allowed=None):
        """Return whether the outputs of the file are close enough to the model's.

        Args:
            quantization: Quantization of the file, or None.
            allowed: Largest allowed deviation, as a fraction of the largest output. By default, the limit for
                `quantization`; without such a limit, the cosine similarity decides.
        """
        if not np.isfinite(self.deviation):
            return False
        if allowed is None:
            allowed = TOLERANCES.get(quantization)
        return self.cosine_similarity >= _MIN_COSINE_SIMILARITY if allowed is None else self.deviation <= allowed


def compare(outputs, expected, labels=None):
    """Compare the outputs of a file with the model's.

    Args:
        outputs: List of the file's outputs, arrays of shape `(images, ...)`.
        expected: List of the model's outputs, of the same shapes.
        labels: Class of each image, or None.

    Returns:
        A `Comparison`.
    """
    agreement = accuracy = expected_accuracy = None
    if len(expected) == 1 and expected[0].ndim == 2 and expected[0].shape[1] > 1:
        classes, expected_classes = outputs[0].argmax(1), expected[0].argmax(1)
        agreement = float((classes == expected_classes).mean())
        if labels is not None:
            accuracy = float((classes == labels).mean())
            expected_accuracy = float((expected_classes == labels).mean())
    pairs = list(zip(outputs, expected, strict=True))
    deviations, similarities = [deviation(*pair) for pair in pairs], [_cosine_similarity(*pair) for pair in pairs]
    return Comparison(max(deviations), min(similarities), agreement, accuracy, expected_accuracy, len(expected[0]))


def deviation(output, expected):
    """Return the largest difference between two arrays, as a fraction of the largest expected magnitude."""
    if output.shape != expected.shape or not np.isfinite(output).all():
        return float("inf")
    return float(np.abs(output - expected).max() / max(np.abs(expected).max(), 1e-30))


def first_deviation(outputs, expected, allowed):
    """Return the first layer whose output deviates by more than the allowed value.

    Args:
        outputs: Dictionary `{layer name: output}` of the file.
        expected: Dictionary `{layer name: output}` of the model, in the order of computation.
        allowed: Largest allowed deviation, as a fraction of the largest value of the output.

    Returns:
        `(layer name, deviation)`, or None if no layer deviates.
    """
    for name, reference in expected.items():
        if name in outputs:
            output = outputs[name]
            value = deviation(output.reshape(reference.shape) if output.size == reference.size else output, reference)
            if not value <= allowed:
                return name, value
    return None


def _cosine_similarity(output, expected):
    output, expected = (array.reshape(len(array), -1).astype("float64") for array in (output, expected))
    if output.shape != expected.shape or not np.isfinite(output).all():
        return -1.0
    lengths = np.linalg.norm(output, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((output * expected).sum(1) / np.maximum(lengths, 1e-30)).mean())
