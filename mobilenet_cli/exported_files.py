"""Exported files as arguments of the commands. Requires no Keras."""

from pathlib import Path

from mobilenet_cli.output import messages
from mobilenet_runtime import is_exported
from mobilenet_runtime.classifier import ExportedClassifier
from mobilenet_runtime.file_formats import ENDINGS


def is_exported_name(name: str) -> bool:
    """Return whether a value of `--model` names an exported file, even if the file doesn't exist."""
    return Path(name).suffix in ENDINGS or is_exported(name)


def exported_classifier(path):
    """Return the classifier in an exported file, and report what is assumed if the file has no metadata."""
    classifier = ExportedClassifier(path)
    if classifier.assumed:
        messages.print(classifier.assumed, soft_wrap=True, markup=False)
    return classifier
