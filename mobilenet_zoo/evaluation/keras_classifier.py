"""Evaluation of Keras models and exported files."""

import contextlib
import statistics
import time
from typing import Any

import keras
import numpy as np

from mobilenet_common.errors import ArgumentError, integer
from mobilenet_common.nesting import last_layer
from mobilenet_runtime import evaluation
from mobilenet_runtime.classifier import softmax
from mobilenet_runtime.evaluation.evaluating import Evaluation
from mobilenet_runtime.examples.examples import Examples
from mobilenet_runtime.images import as_numpy
from mobilenet_runtime.measure import peak_memory
from mobilenet_zoo.evaluation.gradcam import grad_cam
from mobilenet_zoo.locks import lock_of
from mobilenet_zoo.model_preprocessing import preprocessing
from mobilenet_zoo.pretrained import class_names_of
from mobilenet_zoo.profiling import profile

_WARM_UP_RUNS = 2
_OVERLAY_SIZE = 512  # longer side of the overlays in a report, in pixels


def evaluate(model: Any, examples: Examples, **options: Any) -> Evaluation:
    """Evaluate a classifier on labeled images.

    Args:
        model: A Keras model of this library with a classifier, or the path of an exported file (`.tflite`, `.onnx`,
            `.xml`, `.pt2`, or the folder of a SavedModel).
        examples: The labeled images, an `Examples` of `mobilenet_zoo.training.data`.
        **options: Keyword arguments of `mobilenet_runtime.evaluation.evaluate`: `batch_size`, `transform`,
            `class_names`, `speed` and `progress`.

    Returns:
        An `Evaluation`. It lists the images that can't be read, which are skipped.

    Raises:
        ValueError: An argument is wrong, the data has a class that the model doesn't have, or no image can be read.
    """
    return evaluation.evaluate(KerasClassifier(model) if isinstance(model, keras.Model) else model, examples, **options)


class KerasClassifier:
    """Wrapper of a Keras classifier with the interface of `mobilenet_runtime.classifier.ExportedClassifier`.

    Several threads can call `predict` at once. With JAX, the calls run one after another, because Keras donates the
    memory of the weights to the call that is running.

    Args:
        model: A Keras model whose output has the shape `(batch, classes)`.

    Attributes:
        model: The Keras model.
        name: Name of the model.
        runtime: Version of Keras, and the backend.
        transform: The `Preprocessing` of the model.
        class_names: The class names that the model was saved with, or None.
        probabilities: Function that converts outputs of `predict` to probabilities.

    Raises:
        ValueError: The model's output has a different shape.
    """

    def __init__(self, model: keras.Model):
        if not isinstance(model.output_shape, tuple) or len(model.output_shape) != 2:
            raise ArgumentError(
                f"{model.name} has the output shape {model.output_shape}, but a classifier needs (batch, classes): "
                "build the model with include_top=True."
            )
        self.model = model
        self.name = model.name
        self.runtime = f"Keras {keras.__version__}, {keras.backend.backend()}"
        self.transform = preprocessing(model)
        self.class_names = class_names_of(model)
        has_logits = getattr(last_layer(model), "activation", None) is keras.activations.linear
        self.probabilities = softmax if has_logits else (lambda values: values)
        self._lock = lock_of(model) if keras.backend.backend() == "jax" else contextlib.nullcontext()

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the outputs of the model for a batch of images, `(batch, classes)`."""
        with self._lock:
            return as_numpy(self.model.predict_on_batch(images))

    def measured(self, image: np.ndarray, runs: int) -> tuple[float, int, float | None]:
        """Measure latency and peak memory in this process.

        Args:
            image: A batch with one image.
            runs: Number of timed runs, at least 1.

        Returns:
            `(latency_ms, latency_batch, peak_memory_mb)`: the median latency in milliseconds, the batch size, and the
            peak memory of this process in megabytes, or None if it is unknown.
        """
        peak, times = peak_memory(), []
        for _ in range(_WARM_UP_RUNS + runs):
            start = time.perf_counter()
            self.predict(image)
            times.append(time.perf_counter() - start)
        return 1e3 * statistics.median(times[_WARM_UP_RUNS:]), len(image), None if peak is None else peak / 1e6

    def costs(self) -> dict[str, float]:
        """Return the number of parameters and of multiply-accumulates of the model, `{"parameters", "macs"}`."""
        transform, channels = self.transform, (self.transform.channels,)
        channels_first = transform.data_format == "channels_first"
        counts = profile(self.model, (*channels, *transform.size) if channels_first else (*transform.size, *channels))
        return {"parameters": counts.parameters, "macs": counts.macs}


def heat_on_mistakes(model: keras.Model, found: Evaluation, count: int = 12, batch_size: int = 16) -> dict[int, Any]:
    """Return Grad-CAM overlays of the most confident mistakes, for a report.

    Args:
        model: The Keras model that was evaluated.
        found: The `Evaluation` of the model.
        count: Maximum number of mistakes, at least 0.
        batch_size: Number of images per batch, at least 1.

    Returns:
        `{row of the evaluation: PIL image}`, to pass to `write_report` as `overlays`. The heat marks the parts of the
        image that support the predicted class.

    Raises:
        ValueError: An argument is wrong, or the model has no global pool.
    """
    batch_size = integer("batch_size", batch_size, 1)
    rows = evaluation.confident_mistakes(found.probabilities, found.labels, count)
    overlays = {}
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        images = [found.examples.images[found.indices[row]] for row in batch]
        maps, _ = grad_cam(model, found.transform(images), found.probabilities[batch].argmax(1))
        for row, image, heat in zip(batch, images, maps, strict=True):
            overlays[int(row)] = evaluation.photograph_overlay(image, heat, found.transform, _OVERLAY_SIZE)
    return overlays
