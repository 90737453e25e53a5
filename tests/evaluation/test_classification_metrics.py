"""Metrics compared with those of scikit-learn and with values computed by hand."""

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from mobilenet_runtime.evaluation.classification_metrics import calibration, confident_mistakes, confused_pairs, metrics

pytestmark = pytest.mark.across


def random_predictions(count=400, classes=7, seed=0, absent=()):
    """Return random probabilities, which are correct in most cases, and labels without the `absent` classes."""
    random = np.random.default_rng(seed)
    labels = random.choice([i for i in range(classes) if i not in absent], count)
    logits = random.normal(size=(count, classes)) + 2 * np.eye(classes)[labels]
    values = np.exp(2 * logits)
    return (values / values.sum(1, keepdims=True)).astype("float32"), labels


@pytest.mark.parametrize("classes", [2, 5, 6, 7, 200])
def test_metrics_match_scikit_learn(classes):
    probabilities, labels = random_predictions(classes=classes, absent=(1,) if classes > 2 else ())
    result, indices = metrics(probabilities, labels), range(classes)
    predicted = probabilities.argmax(1)
    np.testing.assert_array_equal(result.confusion, reference.confusion_matrix(labels, predicted, labels=indices))
    expected = reference.precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=np.nan)
    for actual, expected_values in zip(
        (result.precision, result.recall, result.f1, result.support), expected, strict=True
    ):
        np.testing.assert_allclose(actual, expected_values, rtol=1e-12)
    scores = probabilities[:, 1] if classes == 2 else probabilities
    assert result.log_loss == pytest.approx(reference.log_loss(labels, probabilities, labels=indices), rel=1e-5)
    assert result.top1 == reference.accuracy_score(labels, predicted)
    if classes > 5:
        assert result.top5 == reference.top_k_accuracy_score(labels, scores, k=5, labels=indices)
    else:
        assert result.top5 is None


def test_log_loss_of_probability_zero_matches_scikit_learn():
    probabilities = np.array([[1, 0], [0, 1], [0.5, 0.5]], "float32")
    labels = np.array([1, 1, 0])
    expected = reference.log_loss(labels, probabilities)
    assert metrics(probabilities, labels).log_loss == pytest.approx(expected, rel=1e-6)
    assert expected > 5


def test_calibration_matches_scikit_learn():
    random = np.random.default_rng(1)
    confidences = random.uniform(size=500)
    correct = random.uniform(size=500) < confidences**2
    result = calibration(confidences, correct, bins=10)
    filled = result.counts > 0
    accuracy, confidence = calibration_curve(correct, confidences, n_bins=10, strategy="uniform")
    np.testing.assert_allclose(result.accuracy[filled], accuracy)
    np.testing.assert_allclose(result.confidence[filled], confidence)
    assert result.counts.sum() == 500


def test_calibration_error_matches_hand_calculation():
    """There are two correct and one wrong prediction in the bin (0.8, 0.9], and a wrong one in (0.5, 0.6]."""
    result = calibration([0.82, 0.85, 0.88, 0.55], [True, True, False, False], bins=10)
    assert result.ece == pytest.approx((3 * abs(2 / 3 - 0.85) + 1 * 0.55) / 4)
    assert result.counts.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 3, 0]
    assert np.isnan(result.accuracy[0]) and result.accuracy[8] == pytest.approx(2 / 3)


def test_bin_includes_its_upper_edge():
    assert calibration([0.0, 0.25, 0.2500001, 1.0], [True] * 4, bins=4).counts.tolist() == [2, 1, 0, 1]


def test_metrics_use_fifteen_bins():
    probabilities, labels = random_predictions()
    assert len(metrics(probabilities, labels).calibration.counts) == 15


def test_confident_mistakes_are_sorted_by_confidence():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7], [0.0, 1.0]])
    labels = np.array([0, 1, 0, 0, 1])
    assert confident_mistakes(probabilities, labels, 10).tolist() == [2, 3, 1]
    assert confident_mistakes(probabilities, labels, 2).tolist() == [2, 3]
    assert confident_mistakes(probabilities, probabilities.argmax(1), 2).tolist() == []


def test_confused_pairs_are_sorted_by_count():
    confusion = np.array([[9, 2, 0], [5, 9, 1], [0, 0, 9]])
    assert confused_pairs(confusion, 2) == [(1, 0, 5), (0, 1, 2)]
    assert confused_pairs(confusion, 9) == [(1, 0, 5), (0, 1, 2), (1, 2, 1)]


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([0.5, 0.5], [0], r"probabilities of shape \(2,\)"),
        ([[1.0]], [0], "at least one image and two classes"),
        (np.zeros((0, 3)), np.zeros(0, int), "one image"),
        ([[0.5, 0.5]], [0, 1], "one for each image"),
        ([[0.5, 0.5]], [0.0], "integers"),
        ([[0.5, 0.5]], [2], r"labels must be in 0..1, got 2"),
        ([[0.5, 0.5]], [-1], "labels must be in 0..1, got -1"),
        ([[3.0, -2.0]], [0], "apply a softmax to logits"),
        ([[np.nan, 0.5]], [0], "probabilities must be in 0..1"),
    ],
)
def test_wrong_arguments_raise(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        metrics(probabilities, labels)
