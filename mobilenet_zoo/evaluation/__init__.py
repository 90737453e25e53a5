"""How good a classifier is, where it errs, and what it looks at."""

from mobilenet_runtime.evaluation import Calibration, Evaluation, Metrics, Speed, calibration, metrics, write_report
from mobilenet_zoo.evaluation.evaluating import KerasClassifier, evaluate, heat_on_mistakes
from mobilenet_zoo.evaluation.gradcam import Explanation, explain, grad_cam

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
