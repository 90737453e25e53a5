"""Evaluation of classifiers: metrics, reports, and Grad-CAM heatmaps."""

from mobilenet_runtime.evaluation import Calibration, Evaluation, Metrics, Speed, calibration, metrics, write_report
from mobilenet_zoo.evaluation.gradcam import Explanation, explain, grad_cam
from mobilenet_zoo.evaluation.keras_classifier import KerasClassifier, evaluate, heat_on_mistakes

__all__ = [
    "Calibration",
    "Evaluation",
    "Explanation",
    "KerasClassifier",
    "Metrics",
    "Speed",
    "calibration",
    "evaluate",
    "explain",
    "grad_cam",
    "heat_on_mistakes",
    "metrics",
    "write_report",
]
