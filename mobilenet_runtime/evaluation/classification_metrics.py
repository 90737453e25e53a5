"""How good probabilities are, next to the true classes: accuracy, log loss, confusions and calibration."""

import dataclasses

import numpy as np

from mobilenet_common.errors import ArgumentError, integer

BINS = 15  # as Guo et al. take
_LEAST = float(np.finfo("float32").eps)  # no probability counts for less in a logarithm, as in scikit-learn


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The reliability diagram: how often predictions of a given confidence are correct (Guo et al., 2017, section 2).

    Attributes:
        edges: `(bins + 1,)`, of equal width from 0 to 1; a bin holds its upper edge.
        counts: `(bins,)`, images whose confidence, the largest probability, lies in each bin.
        confidence: `(bins,)`, its mean in each bin; NaN where a bin is empty.
        accuracy: `(bins,)`, share of correct predictions in each bin; NaN where a bin is empty.
        ece: Expected calibration error, the mean distance of the two, weighed by the counts (equation 3).
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float


@dataclasses.dataclass(frozen=True)
class Metrics:
    """What `metrics` finds.

    Attributes:
        top1: Fraction of images whose likeliest class is the true one.
        top5: Share whose true class is among the five likeliest; None for five classes or fewer.
        log_loss: Mean of -log of the true class's probability, in nats.
        confusion: `(classes, classes)` int64: rows are true classes, columns predicted ones.
        precision, recall, f1: `(classes,)`; NaN where they are 0 / 0: the precision of a class that is never
            predicted, the recall of one that has no images.
        support: `(classes,)` int64, images of each class.
        calibration: A `Calibration`.
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
    """Measure a classifier's predictions.

    Args:
        probabilities: `(n, classes)`, at least one image and two classes.
        labels: `(n,)` integers, the true classes.

    Returns:
        A `Metrics`.

    Raises:
        ValueError: The shapes don't fit, a label is no class, or a probability is not in 0..1.
    """
    values, labels = _checked(probabilities, labels)
    classes = values.shape[1]
    order = np.argsort(-values, axis=1, kind="stable")
    hits = order == labels[:, None]
    confusion = np.zeros((classes, classes), "int64")
    np.add.at(confusion, (labels, order[:, 0]), 1)
    right, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    true = values[np.arange(len(values)), labels]
    return Metrics(
        top1=float(hits[:, 0].mean()),
        top5=float(hits[:, :5].any(1).mean()) if classes > 5 else None,
        log_loss=float(-np.log(np.maximum(true, _LEAST)).mean()),
        confusion=confusion,
        precision=_share(right, predicted),
        recall=_share(right, support),
        f1=_share(2 * right, predicted + support),
        support=support,
        calibration=calibration(values.max(1), hits[:, 0]),
    )


def calibration(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Calibration:
    """Return the reliability diagram and the expected calibration error (Guo et al., 2017, section 2).

    Args:
        confidences: `(n,)` in 0..1.
        correct: `(n,)` booleans, whether the predictions are correct.
        bins: Of equal width, at least 1.

    Returns:
        A `Calibration`.
    """
    bins = integer("bins", bins, 1)
    confidences, correct = np.asarray(confidences, "float64"), np.asarray(correct, "float64")
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    confidence = _share(np.bincount(places, confidences, bins), counts)
    accuracy = _share(np.bincount(places, correct, bins), counts)
    ece = np.nansum(counts * np.abs(accuracy - confidence)) / max(1, len(confidences))
    return Calibration(edges, counts, confidence, accuracy, float(ece))


def confident_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return which images a model is most sure of and wrong about, the surest first: at most `count` indices."""
    values, labels = _checked(probabilities, labels)
    wrong = np.flatnonzero(values.argmax(1) != labels)
    return wrong[np.argsort(-values[wrong].max(1), kind="stable")[: integer("count", count, 0)]]


def confused_pairs(confusion, count):
    """Return `[(true class, predicted class, images)]` of the most frequent mistakes, at most `count`."""
    wrong = np.array(confusion)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[: integer("count", count, 0)]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(true), int(said), int(wrong[true, said])) for true, said in pairs if wrong[true, said]]


def _checked(probabilities, labels):
    values, labels = np.asarray(probabilities, "float64"), np.asarray(labels)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise ArgumentError(
            f"probabilities of shape {values.shape} are not allowed: they must be (images, classes), of one image "
            "and two classes at least."
        )
    if labels.shape != values.shape[:1] or labels.dtype.kind not in "iu":
        raise ArgumentError(
            f"labels of shape {labels.shape} and type {labels.dtype} are not allowed: they must be {len(values)} "
            "integers, one for each image."
        )
    outside = labels[(labels < 0) | (labels >= values.shape[1])]
    if outside.size:
        raise ArgumentError(f"labels hold {outside[0]}, which is no class: they must be in 0..{values.shape[1] - 1}.")
    if not (values.min() >= 0 and values.max() <= 1 + 1e-3):  # NaN compares false, so it ends here too
        raise ArgumentError(
            f"probabilities are not allowed to be outside 0..1, and these reach from {values.min():g} to "
            f"{values.max():g}: pass logits through a softmax first."
        )
    return values.clip(0, 1), labels.astype("int64")


def _share(part, whole):
    """Return `part / whole`, NaN where nothing is shared out."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
