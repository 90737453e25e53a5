"""`predict` with an exported file, which needs no Keras."""

from pathlib import Path

import numpy as np

from mobilenet_cli.output import messages
from mobilenet_runtime import Preprocessing, is_exported, load
from mobilenet_runtime.labels import BACKGROUND, imagenet_classes
from mobilenet_runtime.runtimes import ENDINGS

_CROP, _INTERPOLATION, _HALF = 0.875, "bicubic", 0.5  # as for a model that nothing is known about


def is_exported_name(name):
    """Whether `--model` names an exported file, be it there or not."""
    return Path(name).suffix in ENDINGS or is_exported(name)


def softmax(values):
    """Probabilities of logits, along the last axis."""
    values = np.exp(values - values.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


class ExportedClassifier:
    """What `predict` needs of an exported file.

    Attributes:
        transform: The `Preprocessing` of its pictures.
        class_names: Its classes', or None where it says none, or where they are ImageNet's, which have synsets.

    Raises:
        ValueError: The file can't be run, or is no classifier.
        RuntimeMissing: The library that runs it is not installed.
    """

    def __init__(self, path):
        self._model = load(path)
        self._metadata = self._model.metadata
        if len(self._model.output_names) != 1:
            raise ValueError(
                f"{path} gives {', '.join(self._model.output_names)}: predict needs a file with one answer, the "
                "probabilities or logits of classes."
            )
        if self._metadata is None:
            *_, channels = self._model.picture_shape
            half = (_HALF,) * (channels or 3)
            self.transform = Preprocessing(self._model.size, _CROP, _INTERPOLATION, half, half, channels or 3)
            self.class_names = None
            messages.print(
                f"{path} has no metadata: its pictures are taken to be normalised to -1..1, its classes to be "
                "ImageNet's if they are as many.",
                soft_wrap=True,
                markup=False,
            )
        elif self._metadata.gives == "features":
            raise self._no_classifier()
        else:
            self.transform = self._metadata.transform()
            self.class_names = None if _are_imagenet(self._metadata.class_names) else self._metadata.class_names

    def answer(self, pictures):
        """The file's answers to a batch of pictures, `(batch, classes)`."""
        values = self._model(pictures)
        if values.ndim != 2:
            raise self._no_classifier()
        return values

    def probabilities(self, values):
        """Answers as probabilities; without metadata, what is none of any picture is taken for logits."""
        if self._metadata is not None:
            return softmax(values) if self._metadata.gives == "logits" else values
        # A file that computes in 8 bits is some hundredths away from a sum of 1.
        given = values.min() >= 0 and np.abs(values.sum(-1) - 1).max() < 0.1
        return values if given else softmax(values)

    def _no_classifier(self):
        return ValueError(
            f"{self._model.path} gives features, not classes: predict needs a file that was exported with its "
            "classifier."
        )


def _are_imagenet(names):
    imagenet = [name for _, name in imagenet_classes()]
    return names is not None and list(names) in (imagenet, [BACKGROUND[1], *imagenet])
