"""A classifier on images with labels: its outputs, how good they are, what they cost."""

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

RUNS = 20  # that the latency is the median of


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast a classifier ran and how much memory that took, on this machine.

    Attributes:
        images_per_second: Of all images from disk to prediction, after a batch that warmed up.
        latency_ms: Median of single runs of `latency_batch` images that were ready.
        latency_batch: 1, or the batch that an exported file is fixed to.
        peak_memory_mb: Most that the process held, in 1e6 bytes; None where the system doesn't tell. An exported file
            has a process of its own; a Keras model's holds Keras, its backend and a batch of images as well.
    """

    images_per_second: float
    latency_ms: float
    latency_batch: int
    peak_memory_mb: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` finds.

    Attributes:
        model: Its name.
        runtime: What ran it, with its version.
        class_names: Of the model's classes.
        indices: `(n,)` int64, which of the examples could be read.
        probabilities: `(n, classes)` float32.
        labels: `(n,)` int64, the true classes among the model's.
        metrics: A `Metrics`.
        damaged: The `ImageError`s of the images that could not be read.
        speed: A `Speed`, or None if it was not measured.
        costs: `{what: number}`, such as parameters and MACs, as far as they are known.
        examples: That were evaluated.
        transform: The `Preprocessing` of their images.
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
        """Return all figures as plain dicts, lists, strings and numbers; what is 0 / 0 is None."""
        found = self.metrics
        return {
            "model": self.model,
            "runtime": self.runtime,
            "images": len(self.labels),
            "damaged": [str(error) for error in self.damaged],
            "top1": found.top1,
            "top5": found.top5,
            "log_loss": found.log_loss,
            "ece": found.calibration.ece,
            "classes": {
                name: {"precision": _plain(p), "recall": _plain(r), "f1": _plain(f), "support": int(support)}
                for name, p, r, f, support in zip(
                    self.class_names, found.precision, found.recall, found.f1, found.support, strict=True
                )
            },
            "confusion": found.confusion.tolist(),
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
    """Run a classifier on images with labels and measure its outputs. Needs no Keras.

    Args:
        model: The path of an exported file, or an `ExportedClassifier`, or what has the same attributes.
        examples: With `images`, `labels`, `class_names` and `name_of(i)`, as `mobilenet_zoo.training.data.Examples`.
        batch_size: Images that the model takes at once, at least 1.
        transform: A `Preprocessing`; None for the model's own.
        class_names: Of the model; None for those that it brings. Classes of the data are found among them by name.
        speed: Whether to measure latency and memory as well.
        progress: Called as `progress(images, failures)` after each batch with how many were read and the
            `ImageError`s of those that were not; or None.

    Returns:
        An `Evaluation`. Images that can't be read are skipped and listed in it.

    Raises:
        ValueError: An argument is wrong, a class of the data is unknown to the model, or no image can be read.
        RuntimeMissing: The library that runs an exported file is not installed.
    """
    batch_size = integer("batch_size", batch_size, 1)
    classifier = ExportedClassifier(model) if isinstance(model, (str, os.PathLike)) else model
    prepare: Preprocessing = classifier.transform if transform is None else transform
    if not len(examples):
        raise ArgumentError("examples are empty: there has to be an image at least.")
    blank = np.zeros((min(batch_size, len(examples)), *_shape(prepare)), "float32")
    outputs = classifier.predict(blank).shape[-1]  # which also warms it up
    names, numbers = match_classes(examples.class_names, class_names or classifier.class_names, outputs)

    indices, answers, damaged = [], [], []
    start = time.perf_counter()
    for good, values, failures in reading.run(
        classifier.predict, lambda i: _prepared(examples, i, prepare), range(len(examples)), batch_size
    ):
        if good:
            indices.extend(good)
            answers.append(classifier.probabilities(values))
        damaged.extend(failures)
        if progress is not None:
            progress(len(good), failures)
    seconds = time.perf_counter() - start
    if not indices:
        raise ArgumentError(f"None of the {len(examples)} images can be read. The first: {damaged[0]}")

    labels = numbers[np.asarray(examples.labels)[indices]]
    probabilities = np.concatenate(answers).astype("float32")
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
        if isinstance(image, (str, os.PathLike)):  # which the message names
            raise
        raise ImageError(f"{examples.name_of(i)}: {error}") from error


def _shape(transform):
    channels_last = (*transform.size, transform.channels)
    return channels_last if transform.data_format == "channels_last" else (transform.channels, *transform.size)


def _plain(value):
    return None if np.isnan(value) else float(value)
