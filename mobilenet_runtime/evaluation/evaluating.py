"""Evaluate a classifier on labeled images: predictions, metrics, speed and costs."""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mobilenet_common.errors import ArgumentError, integer
from mobilenet_runtime import reading
from mobilenet_runtime.classifier import ExportedClassifier
from mobilenet_runtime.evaluation.classes import match_classes
from mobilenet_runtime.evaluation.classification_metrics import Metrics, metrics
from mobilenet_runtime.examples.examples import Examples
from mobilenet_runtime.images import ImageError
from mobilenet_runtime.transform import Preprocessing

RUNS = 20  # the latency is the median of this many runs


@dataclasses.dataclass(frozen=True)
class Speed:
    """Speed and memory of a classifier on this machine.

    Attributes:
        images_per_second: Throughput over all images from disk to prediction, after one warm-up batch.
        latency_ms: Median time of one run on `latency_batch` preprocessed images, in milliseconds.
        latency_batch: Batch size of a latency run: 1, or the fixed batch size of an exported file.
        peak_memory_mb: Peak memory of the process in units of 1e6 bytes; None if the system doesn't report it. An
            exported file runs in its own process. The process of a Keras model also holds Keras, its backend and a
            batch of images.
    """

    images_per_second: float
    latency_ms: float
    latency_batch: int
    peak_memory_mb: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of `evaluate`.

    Attributes:
        model: Name of the model.
        runtime: Name and version of the library that ran the model.
        class_names: Names of the model's classes.
        indices: Indices of the examples that could be read, int64 of shape `(n,)`.
        probabilities: Predicted probabilities, float32 of shape `(n, classes)`.
        labels: True classes as class numbers of the model, int64 of shape `(n,)`.
        metrics: The `Metrics` of the predictions.
        damaged: `ImageError`s of the images that could not be read.
        speed: The `Speed`, or None if it was not measured.
        costs: Known costs of the model, `{name: number}`, such as parameters and MACs.
        examples: The `Examples` that were evaluated.
        transform: The `Preprocessing` of the images.
    """

    model: str
    runtime: str
    class_names: tuple[str, ...]
    indices: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    metrics: Metrics
    damaged: tuple[ImageError, ...]
    speed: Speed | None
    costs: dict
    examples: Any
    transform: Preprocessing

    def as_dict(self) -> dict[str, Any]:
        """Return all metrics as plain dicts, lists, strings and numbers. Undefined metrics (0 / 0) are None."""
        values = self.metrics
        return {
            "model": self.model,
            "runtime": self.runtime,
            "images": len(self.labels),
            "damaged": [str(error) for error in self.damaged],
            "top1": values.top1,
            "top5": values.top5,
            "log_loss": values.log_loss,
            "ece": values.calibration.ece,
            "classes": {
                name: {"precision": _plain(p), "recall": _plain(r), "f1": _plain(f), "support": int(support)}
                for name, p, r, f, support in zip(
                    self.class_names, values.precision, values.recall, values.f1, values.support, strict=True
                )
            },
            "confusion": values.confusion.tolist(),
            "speed": self.speed and dataclasses.asdict(self.speed),
            "costs": self.costs,
        }


def evaluate(
    model: Any,
    examples: Examples,
    *,
    batch_size: int = 32,
    transform: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    speed: bool = True,
    progress: Callable[[int, list], Any] | None = None,
) -> Evaluation:
    """Evaluate a classifier on labeled images. Requires no Keras.

    Args:
        model: Path of an exported file, or an `ExportedClassifier` or any object with the same attributes and methods.
        examples: `Examples` to evaluate on.
        batch_size: Number of images per batch, at least 1.
        transform: `Preprocessing` of the images; None for the model's own.
        class_names: Names of the model's classes, which are matched with the data's classes by name; None for the
            names stored with the model.
        speed: Whether to measure latency and memory as well.
        progress: Function that is called as `progress(images, failures)` after each batch, with the number of images
            that were read and the `ImageError`s of the others; or None.

    Returns:
        An `Evaluation`. Images that can't be read are skipped, and listed in its attribute `damaged`.

    Raises:
        ValueError: If an argument is wrong, the model doesn't have a class of the data, or no image can be read.
        RuntimeMissing: If the library that runs an exported file is not installed.
    """
    batch_size = integer("batch_size", batch_size, 1)
    classifier = ExportedClassifier(model) if isinstance(model, (str, os.PathLike)) else model
    prepare: Preprocessing = classifier.transform if transform is None else transform
    if not len(examples):
        raise ArgumentError("examples is empty: it must contain at least one image.")
    blank = np.zeros((min(batch_size, len(examples)), *_shape(prepare)), "float32")
    outputs = classifier.predict(blank).shape[-1]  # this call also warms up the model
    names, numbers = match_classes(examples.class_names, class_names or classifier.class_names, outputs)

    indices, batches, damaged = [], [], []
    start = time.perf_counter()
    for good, values, failures in reading.run(
        classifier.predict, lambda i: _prepared(examples, i, prepare), range(len(examples)), batch_size
    ):
        if good:
            indices.extend(good)
            batches.append(classifier.probabilities(values))
        damaged.extend(failures)
        if progress is not None:
            progress(len(good), failures)
    seconds = time.perf_counter() - start
    if not indices:
        raise ArgumentError(f"None of the {len(examples)} images can be read. The first error: {damaged[0]}")

    labels = numbers[np.asarray(examples.labels)[indices]]
    probabilities = np.concatenate(batches).astype("float32")
    return Evaluation(
        model=classifier.name,
        runtime=classifier.runtime,
        class_names=names,
        indices=np.array(indices),
        probabilities=probabilities,
        labels=labels,
        metrics=metrics(probabilities, labels),
        damaged=tuple(damaged),
        speed=Speed(len(indices) / seconds, *classifier.measured(blank[:1], RUNS)) if speed else None,
        costs=classifier.costs(),
        examples=examples,
        transform=prepare,
    )


def _prepared(examples, i, transform):
    image = examples.images[i]
    try:
        return transform(image)
    except ImageError as error:
        if isinstance(image, (str, os.PathLike)):  # the message names the path already
            raise
        raise ImageError(f"{examples.name_of(i)}: {error}") from error


def _shape(transform):
    channels_last = (*transform.size, transform.channels)
    return channels_last if transform.data_format == "channels_last" else (transform.channels, *transform.size)


def _plain(value):
    return None if np.isnan(value) else float(value)
