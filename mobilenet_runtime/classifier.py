"""Classifiers in exported files, which turn images into class probabilities."""

import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_runtime.class_names import BACKGROUND, imagenet_classes
from mobilenet_runtime.measure import measure, size_of
from mobilenet_runtime.runtimes import load
from mobilenet_runtime.transform import Preprocessing

_CROP, _INTERPOLATION, _HALF = 0.875, "bicubic", 0.5  # preprocessing assumed for files without metadata


def softmax(values):
    """Return the softmax of logits over the last axis."""
    values = np.exp(values - values.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


class ExportedClassifier:
    """A classifier in an exported file.

    Args:
        path: Path of the exported file, or of the folder of a SavedModel.

    Attributes:
        model: The `Exported` model.
        name: Name of the model, or the path of a file without metadata.
        runtime: Name and version of the library that runs the file.
        transform: `Preprocessing` for the model's images.
        class_names: Names of the classes. None if the file has no names, or if they are those of ImageNet, so that data
            can refer to the classes by synset too.
        assumed: Sentence that says what is assumed about a file without metadata; None for a file with metadata.

    Raises:
        ValueError: If the file can't be run, or is not a classifier.
        RuntimeMissing: If the library that runs the file is not installed.
    """

    def __init__(self, path):
        self.model = load(path)
        self._metadata = self.model.metadata
        self.runtime = self.model.runtime
        self.name = self._metadata.name if self._metadata else self.model.path
        self.assumed = None
        if len(self.model.output_names) != 1:
            raise ArgumentError(
                f"{path} has the outputs {', '.join(self.model.output_names)}, but a classifier has one output: the "
                "probabilities or logits of its classes."
            )
        if self._metadata is None:
            *_, channels = self.model.image_shape
            half = (_HALF,) * (channels or 3)
            self.transform = Preprocessing(self.model.size, _CROP, _INTERPOLATION, half, half, channels or 3)
            self.class_names = None
            self.assumed = (
                f"{path} has no metadata: images are normalized to -1..1, and the classes are assumed to be those of "
                "ImageNet if their number matches."
            )
        elif self._metadata.gives == "features":
            raise self._not_a_classifier_error()
        else:
            self.transform = self._metadata.transform()
            self.class_names = None if _are_imagenet(self._metadata.class_names) else self._metadata.class_names

    def predict(self, images):
        """Return the outputs for a batch of images, of shape `(batch, classes)`."""
        values = self.model(images)
        if isinstance(values, dict) or values.ndim != 2:
            raise self._not_a_classifier_error()
        return values

    def probabilities(self, values):
        """Convert outputs to probabilities.

        Outputs of a file without metadata are treated as logits if they can't be probabilities.
        """
        if self._metadata is not None:
            return softmax(values) if self._metadata.gives == "logits" else values
        # The sum of an int8 model's probabilities may differ from 1 by a few hundredths.
        are_probabilities = values.min() >= 0 and np.abs(values.sum(-1) - 1).max() < 0.1
        return values if are_probabilities else softmax(values)

    def measured(self, image, runs):
        """Measure the speed and memory of the model in a separate process.

        Args:
            image: float32 array of shape `(1, height, width, channels)`.
            runs: Number of runs whose median is the latency, at least 1.

        Returns:
            A tuple `(latency_ms, batch, peak_memory_mb)`: the latency of one run in milliseconds, the batch size of
            that run, and the peak memory in units of 1e6 bytes, or None if the system doesn't report it.
        """
        record, _ = measure(self.model.path, images=image, runs=runs)
        return record["latency_ms"], self.model.batch_size or 1, record["peak_memory_mb"]

    def costs(self):
        """Return the number of operations and the file size as `{"operations": ..., "bytes": ...}`."""
        return {"operations": sum(self.model.operations().values()), "bytes": size_of(self.model.path)}

    def _not_a_classifier_error(self):
        return ArgumentError(
            f"{self.model.path} outputs features, not classes: pass a classifier, exported with its classification "
            "head."
        )


def _are_imagenet(names):
    imagenet = [name for _, name in imagenet_classes()]
    return names is not None and list(names) in (imagenet, [BACKGROUND[1], *imagenet])
