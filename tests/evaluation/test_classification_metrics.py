"""Metrics, next to scikit-learn's and to what is computed by hand."""

import numpy as np
import pytest
from sklearn import metrics as theirs
from sklearn.calibration import calibration_curve

from mobilenet_runtime.evaluation.classification_metrics import calibration, confident_mistakes, confused_pairs, metrics

pytestmark = pytest.mark.across


def answers(count=400, classes=7, seed=0, absent=()):
    """Random probabilities, right more often than not, and labels, of which some classes have none."""
    random = np.random.default_rng(seed)
    labels = random.choice([i for i in range(classes) if i not in absent], count)
    logits = random.normal(size=(count, classes)) + 2 * np.eye(classes)[labels]
    values = np.exp(2 * logits)
    return (values / values.sum(1, keepdims=True)).astype("float32"), labels


@pytest.mark.parametrize("classes", [2, 5, 6, 7, 200])
def test_as_scikit_learn(classes):
    probabilities, labels = answers(classes=classes, absent=(1,) if classes > 2 else ())
    found, every = metrics(probabilities, labels), range(classes)
    predicted = probabilities.argmax(1)
    np.testing.assert_array_equal(found.confusion, theirs.confusion_matrix(labels, predicted, labels=every))
    expected = theirs.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=np.nan)
    for ours, other in zip((found.precision, found.recall, found.f1, found.support), expected, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-12)
    given = probabilities[:, 1] if classes == 2 else probabilities
    assert found.log_loss == pytest.approx(theirs.log_loss(labels, probabilities, labels=every), rel=1e-5)
    assert found.top1 == theirs.accuracy_score(labels, predicted)
    if classes > 5:
        assert found.top5 == theirs.top_k_accuracy_score(labels, given, k=5, labels=every)
    else:
        assert found.top5 is None


def test_an_impossible_answer_costs_as_much_as_in_scikit_learn():
    probabilities = np.array([[1, 0], [0, 1], [0.5, 0.5]], "float32")
    labels = np.array([1, 1, 0])
    expected = theirs.log_loss(labels, probabilities)
    assert metrics(probabilities, labels).log_loss == pytest.approx(expected, rel=1e-6)
    assert expected > 5


def test_the_diagram_as_scikit_learns():
    random = np.random.default_rng(1)
    confidences = random.uniform(size=500)
    correct = random.uniform(size=500) < confidences**2
    found = calibration(confidences, correct, bins=10)
    filled = found.counts > 0
    accuracy, confidence = calibration_curve(correct, confidences, n_bins=10, strategy="uniform")
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence)
    assert found.counts.sum() == 500


def test_the_calibration_error_by_hand():
    """Three answers in the bin (0.8, 0.9], of which two are right, and one wrong one in (0.5, 0.6]."""
    found = calibration([0.82, 0.85, 0.88, 0.55], [True, True, False, False], bins=10)
    assert found.ece == pytest.approx((3 * abs(2 / 3 - 0.85) + 1 * 0.55) / 4)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 3, 0]
    assert np.isnan(found.accuracy[0]) and found.accuracy[8] == pytest.approx(2 / 3)


def test_a_bin_holds_its_upper_edge():
    assert calibration([0.0, 0.25, 0.2500001, 1.0], [True] * 4, bins=4).counts.tolist() == [2, 1, 0, 1]


def test_fifteen_bins():
    probabilities, labels = answers()
    assert len(metrics(probabilities, labels).calibration.counts) == 15


def test_confident_mistakes():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7], [0.0, 1.0]])
    labels = np.array([0, 1, 0, 0, 1])
    assert confident_mistakes(probabilities, labels, 10).tolist() == [2, 3, 1]
    assert confident_mistakes(probabilities, labels, 2).tolist() == [2, 3]
    assert confident_mistakes(probabilities, probabilities.argmax(1), 2).tolist() == []


def test_confused_pairs():
    confusion = np.array([[9, 2, 0], [5, 9, 1], [0, 0, 9]])
    assert confused_pairs(confusion, 2) == [(1, 0, 5), (0, 1, 2)]
    assert confused_pairs(confusion, 9) == [(1, 0, 5), (0, 1, 2), (1, 2, 1)]


@pytest.mark.parametrize(
    ("probabilities", "labels", "said"),
    [
        ([0.5, 0.5], [0], r"probabilities of shape \(2,\)"),
        ([[1.0]], [0], "two classes at least"),
        (np.zeros((0, 3)), np.zeros(0, int), "one image"),
        ([[0.5, 0.5]], [0, 1], "one for each image"),
        ([[0.5, 0.5]], [0.0], "integers"),
        ([[0.5, 0.5]], [2], r"labels hold 2, which is no class: they must be in 0..1"),
        ([[0.5, 0.5]], [-1], "labels hold -1"),
        ([[3.0, -2.0]], [0], "pass logits through a softmax"),
        ([[np.nan, 0.5]], [0], "outside 0..1"),
    ],
)
def test_what_can_not_be_measured(probabilities, labels, said):
    with pytest.raises(ValueError, match=said):
        metrics(probabilities, labels)
