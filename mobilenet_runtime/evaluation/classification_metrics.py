"""Classification metrics: accuracy, log loss, confusion matrix and calibration."""

import dataclasses

import numpy as np

from mobilenet_common.errors import ArgumentError, integer

BINS = 15  # as in Guo et al.
_LEAST = float(np.finfo("float32").eps)  # lower bound of probabilities in the log loss, as in scikit-learn


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The reliability diagram: how often predictions of a given confidence are correct (Guo et al., 2017, section 2).

    Attributes:
        edges: Edges of the bins, of shape `(bins + 1,)`, equally spaced from 0 to 1. A bin includes its upper edge.
        counts: Number of images in each bin, of shape `(bins,)`. An image belongs to the bin of its confidence, which
            is its largest probability.
        confidence: Mean confidence in each bin, of shape `(bins,)`; NaN for empty bins.
        accuracy: Fraction of correct predictions in each bin, of shape `(bins,)`; NaN for empty bins.
        ece: Expected calibration error: the mean distance between confidence and accuracy, weighted by the counts
            (equation 3).
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Metrics of a classifier, as returned by `metrics`.

    Attributes:
        top1: Fraction of images whose most likely class is the true class.
        top5: Fraction of images whose true class is among the five most likely classes; None for five classes or fewer.
        log_loss: Mean of -log of the true class's probability, in nats.
        confusion: Confusion matrix, int64 of shape `(classes, classes)`: rows are true classes, columns predicted ones.
        precision, recall, f1: Precision, recall and F1 score of each class, of shape `(classes,)`. They are NaN where
            they are undefined (0 / 0): the precision of a class that is never predicted, the recall of a class without
            images, and the F1 score of a class with neither.
        support: Number of images of each class, int64 of shape `(classes,)`.
        calibration: The `Calibration` of the predictions.
    """

    top1: float
    top5: float | None
    log_loss: float
    confusion: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    calibration: Calibration


def metrics(probabilities: np.ndarray, labels: np.ndarray) -> Metrics:
    """Compute the metrics of a classifier's predictions.

    Args:
        probabilities: Array of shape `(n, classes)`, with at least one image and two classes.
        labels: Integer array of shape `(n,)` with the true classes.

    Returns:
        The `Metrics`.

    Raises:
        ValueError: If the shapes don't fit, a label is out of range, or a probability is not in 0..1.
    """
    values, labels = _checked(probabilities, labels)
    classes = values.shape[1]
    order = np.argsort(-values, axis=1, kind="stable")
    hits = order == labels[:, None]
    confusion = np.zeros((classes, classes), "int64")
    np.add.at(confusion, (labels, order[:, 0]), 1)
    correct, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    true = values[np.arange(len(values)), labels]
    return Metrics(
        top1=float(hits[:, 0].mean()),
        top5=float(hits[:, :5].any(1).mean()) if classes > 5 else None,
        log_loss=float(-np.log(np.maximum(true, _LEAST)).mean()),
        confusion=confusion,
        precision=_ratio(correct, predicted),
        recall=_ratio(correct, support),
        f1=_ratio(2 * correct, predicted + support),
        support=support,
        calibration=calibration(values.max(1), hits[:, 0]),
    )


def calibration(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Calibration:
    """Return the reliability diagram and the expected calibration error (Guo et al., 2017, section 2).

    Args:
        confidences: Array of shape `(n,)` with the largest probability of each image, in 0..1.
        correct: Boolean array of shape `(n,)` that says which predictions are correct.
        bins: Number of bins of equal width, at least 1.

    Returns:
        The `Calibration`.
    """
    bins = integer("bins", bins, 1)
    confidences, correct = np.asarray(confidences, "float64"), np.asarray(correct, "float64")
    edges = np.linspace(0, 1, bins + 1)
    indices = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    counts = np.bincount(indices, minlength=bins)
    confidence = _ratio(np.bincount(indices, confidences, bins), counts)
    accuracy = _ratio(np.bincount(indices, correct, bins), counts)
    ece = np.nansum(counts * np.abs(accuracy - confidence)) / max(1, len(confidences))
    return Calibration(edges, counts, confidence, accuracy, float(ece))


def confident_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return the wrong predictions with the highest probabilities.

    Args:
        probabilities: Array of shape `(n, classes)`.
        labels: Integer array of shape `(n,)` with the true classes.
        count: Maximum number of predictions to return, at least 0.

    Returns:
        Array of indices, with the most confident prediction first.
    """
    values, labels = _checked(probabilities, labels)
    wrong = np.flatnonzero(values.argmax(1) != labels)
    return wrong[np.argsort(-values[wrong].max(1), kind="stable")[: integer("count", count, 0)]]


def confused_pairs(confusion, count):
    """Return at most `count` of the most frequent mistakes as `[(true class, predicted class, number of images)]`."""
    wrong = np.array(confusion)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[: integer("count", count, 0)]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(true), int(other), int(wrong[true, other])) for true, other in pairs if wrong[true, other]]


def _checked(probabilities, labels):
    values, labels = np.asarray(probabilities, "float64"), np.asarray(labels)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise ArgumentError(
            f"probabilities of shape {values.shape} are not allowed: they must be (images, classes), with at "
            "least one image and two classes."
        )
    if labels.shape != values.shape[:1] or labels.dtype.kind not in "iu":
        raise ArgumentError(
            f"labels of shape {labels.shape} and type {labels.dtype} are not allowed: they must be {len(values)} "
            "integers, one for each image."
        )
    outside = labels[(labels < 0) | (labels >= values.shape[1])]
    if outside.size:
        raise ArgumentError(f"labels must be in 0..{values.shape[1] - 1}, got {outside[0]}.")
    if not (values.min() >= 0 and values.max() <= 1 + 1e-3):  # also true for NaN, which compares false
        raise ArgumentError(
            f"probabilities must be in 0..1, got values from {values.min():g} to {values.max():g}: apply a softmax to "
            "logits first."
        )
    return values.clip(0, 1), labels.astype("int64")


def _ratio(part, whole):
    """Return `part / whole`, with NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
