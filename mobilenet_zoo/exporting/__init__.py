"""Export of models to LiteRT, ONNX, OpenVINO, torch.export and TensorFlow's SavedModel."""

from mobilenet_zoo.exporting.exporter import export, export_all
from mobilenet_zoo.exporting.progress import ExportStep
from mobilenet_zoo.exporting.report import ExportReport

__all__ = ["ExportReport", "ExportStep", "export", "export_all"]
