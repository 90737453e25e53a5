"""Evaluate classifiers without Keras: metrics, speed, and an HTML report."""

from mobilenet_runtime.evaluation.classification_metrics import (
    Calibration,
    Metrics,
    calibration,
    confident_mistakes,
    metrics,
)
from mobilenet_runtime.evaluation.evaluating import Evaluation, Speed, evaluate
from mobilenet_runtime.evaluation.overlays import overlay, photograph_overlay
from mobilenet_runtime.evaluation.predictions import read_predictions, save_predictions
from mobilenet_runtime.evaluation.report import write_report

__all__ = [
    "Calibration",
    "Evaluation",
    "Metrics",
    "Speed",
    "calibration",
    "confident_mistakes",
    "evaluate",
    "metrics",
    "overlay",
    "photograph_overlay",
    "read_predictions",
    "save_predictions",
    "write_report",
]
