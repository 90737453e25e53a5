"""An exported file as a classifier: images in, probabilities of classes out."""

import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_runtime.class_names import BACKGROUND, imagenet_classes
from mobilenet_runtime.measure import measure, size_of
from mobilenet_runtime.runtimes import load
from mobilenet_runtime.transform import Preprocessing

_CROP, _INTERPOLATION, _HALF = 0.875, "bicubic", 0.5  # as for a model that nothing is known about


def softmax(values):
    """Return probabilities of logits, along the last axis."""
    values = np.exp(values - values.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


class ExportedClassifier:
    """A classifier in an exported file.

    Attributes:
        model: The `Exported`.
        name: Of the model, else the file's path.
        runtime: Name and version of the library that runs the file.
        transform: The `Preprocessing` of its images.
        class_names: Its classes', or None where it says none, or where they are ImageNet's, which have synsets.
        assumed: What had to be assumed, as a sentence, or None.

    Raises:
        ValueError: The file can't be run, or is no classifier.
        RuntimeMissing: The library that runs it is not installed.
    """

    def __init__(self, path):
        self.model = load(path)
        self._metadata = self.model.metadata
        self.runtime = self.model.runtime
        self.name = self._metadata.name if self._metadata else self.model.path
        self.assumed = None
        if len(self.model.output_names) != 1:
            raise ArgumentError(
                f"{path} gives {', '.join(self.model.output_names)}: a classifier gives one output, the probabilities "
                "or logits of classes."
            )
        if self._metadata is None:
            *_, channels = self.model.image_shape
            half = (_HALF,) * (channels or 3)
            self.transform = Preprocessing(self.model.size, _CROP, _INTERPOLATION, half, half, channels or 3)
            self.class_names = None
            self.assumed = (
                f"{path} has no metadata: its images are taken to be normalized to -1..1, its classes to be "
                "ImageNet's if they are as many."
            )
        elif self._metadata.gives == "features":
            raise self._no_classifier()
        else:
            self.transform = self._metadata.transform()
            self.class_names = None if _are_imagenet(self._metadata.class_names) else self._metadata.class_names

    def predict(self, images):
        """Return the file's outputs to a batch of images, `(batch, classes)`."""
        values = self.model(images)
        if isinstance(values, dict) or values.ndim != 2:
            raise self._no_classifier()
        return values

    def probabilities(self, values):
        """Return outputs as probabilities; without metadata, values that can't be probabilities count as logits."""
        if self._metadata is not None:
            return softmax(values) if self._metadata.gives == "logits" else values
        # A file that computes in 8 bits is some hundredths away from a sum of 1.
        given = values.min() >= 0 and np.abs(values.sum(-1) - 1).max() < 0.1
        return values if given else softmax(values)

    def measured(self, image, runs):
        """Measure the file in a process of its own.

        Args:
            image: `(1, height, width, channels)` in float32.
            runs: Single runs that the latency is the median of, at least 1.

        Returns:
            `(latency_ms, batch, peak_memory_mb)`; the batch is what a run takes, the memory None where it isn't known.
        """
        record, _ = measure(self.model.path, images=image, runs=runs)
        return record["latency_ms"], self.model.batch_size or 1, record["peak_memory_mb"]

    def costs(self):
        """Return `{what: number}` of the file: its operations and its bytes."""
        return {"operations": sum(self.model.operations().values()), "bytes": size_of(self.model.path)}

    def _no_classifier(self):
        return ArgumentError(
            f"{self.model.path} gives features, not classes: a classifier is needed, which was exported with its top."
        )


def _are_imagenet(names):
    imagenet = [name for _, name in imagenet_classes()]
    return names is not None and list(names) in (imagenet, [BACKGROUND[1], *imagenet])
