"""`evaluate` for Keras models too."""

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

_WARM_UP = 2
_SHOWN = 512  # pixels of a photograph's longer side in a report


def evaluate(model: Any, examples: Examples, **options: Any) -> Evaluation:
    """Run a classifier on images with labels and measure its outputs.

    Args:
        model: A Keras model of this library with its classifier, or the path of an exported file (`.tflite`, `.onnx`,
            `.xml`, `.pt2`, or the folder of a SavedModel).
        examples: An `Examples` of `mobilenet_zoo.training.data`.
        **options: Those of `mobilenet_runtime.evaluation.evaluate`: `batch_size`, `transform`, `class_names`, `speed`
            and `progress`.

    Returns:
        An `Evaluation`. Images that can't be read are skipped and listed in it.

    Raises:
        ValueError: An argument is wrong, a class of the data is unknown to the model, or no image can be read.
    """
    return evaluation.evaluate(KerasClassifier(model) if isinstance(model, keras.Model) else model, examples, **options)


class KerasClassifier:
    """A Keras model as a classifier; see `mobilenet_runtime.classifier.ExportedClassifier`.

    Several threads may call `predict` at once. Under JAX they take turns, since Keras hands the weights' memory over to
    the call that runs.
    """

    def __init__(self, model: keras.Model):
        if not isinstance(model.output_shape, tuple) or len(model.output_shape) != 2:
            raise ArgumentError(
                f"{model.name} gives {model.output_shape}, not (batch, classes): a classifier is needed, which has "
                "its top."
            )
        self.model = model
        self.name = model.name
        self.runtime = f"Keras {keras.__version__}, {keras.backend.backend()}"
        self.transform = preprocessing(model)
        self.class_names = class_names_of(model)
        logits = getattr(last_layer(model), "activation", None) is keras.activations.linear
        self.probabilities = softmax if logits else (lambda values: values)
        self._turn = lock_of(model) if keras.backend.backend() == "jax" else contextlib.nullcontext()

    def predict(self, images: np.ndarray) -> np.ndarray:
        with self._turn:
            return as_numpy(self.model.predict_on_batch(images))

    def measured(self, image: np.ndarray, runs: int) -> tuple[float, int, float | None]:
        """Return `(latency_ms, latency_batch, peak_memory_mb)`, in this process."""
        peak, times = peak_memory(), []
        for _ in range(_WARM_UP + runs):
            start = time.perf_counter()
            self.predict(image)
            times.append(time.perf_counter() - start)
        return 1e3 * statistics.median(times[_WARM_UP:]), len(image), None if peak is None else peak / 1e6

    def costs(self) -> dict[str, float]:
        transform, channels = self.transform, (self.transform.channels,)
        first = transform.data_format == "channels_first"
        counts = profile(self.model, (*channels, *transform.size) if first else (*transform.size, *channels))
        return {"parameters": counts.parameters, "macs": counts.macs}


def heat_on_mistakes(model: keras.Model, found: Evaluation, count: int = 12, batch_size: int = 16) -> dict[int, Any]:
    """Return overlays for a report: what the model looked at where it was surest and wrong.

    Args:
        model: The Keras model that was evaluated.
        found: The `Evaluation`.
        count: How many mistakes, at least 0.
        batch_size: Images at once, at least 1.

    Returns:
        `{row of the evaluation: PIL image}` for `write_report`: the heat is that of the class that was predicted.

    Raises:
        ValueError: The model has no feature map before a pool.
    """
    batch_size = integer("batch_size", batch_size, 1)
    rows = evaluation.confident_mistakes(found.probabilities, found.labels, count)
    overlays = {}
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        images = [found.examples.images[found.indices[row]] for row in batch]
        maps, _ = grad_cam(model, found.transform(images), found.probabilities[batch].argmax(1))
        for row, image, heat in zip(batch, images, maps, strict=True):
            overlays[int(row)] = evaluation.photograph_overlay(image, heat, found.transform, _SHOWN)
    return overlays
