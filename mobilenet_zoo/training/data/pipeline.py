"""Batches for `fit` and `evaluate`, loaded by Grain's threads or processes."""

import dataclasses
import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from absl import flags  # Grain depends on it.

from mobilenet_common.errors import ArgumentError, integer, one_of
from mobilenet_runtime.examples.examples import Examples
from mobilenet_runtime.images import ImageError
from mobilenet_runtime.transform import Preprocessing
from mobilenet_zoo.training.data.augmentation import Augmentation
from mobilenet_zoo.training.data.batches import Batches, grain
from mobilenet_zoo.training.data.loader import Loader
from mobilenet_zoo.training.data.mixing import Mixing
from mobilenet_zoo.training.data.orders import Order, class_weights

BALANCES = (None, "weights", "sampling")
_MANY_STEPS = 2**40  # Training is endless, but a Grain range needs an end.
_MAX_THREADS = 8  # Each thread holds a batch in memory.
_SHOWN = 3  # Maximum number of damaged images that a message lists.


class Pipeline:
    """Batches of images and targets, the same on every backend.

    In training, every epoch has a different order. An example in the batch of step k depends only on the seed, on k and
    on its position in the global batch. It doesn't depend on the workers, on the number of processes, or on the step at
    which an iteration starts.

    Args:
        examples: `Examples` with at least one image.
        preprocessing: A `Preprocessing`, as `mobilenet_zoo.preprocessing(model)` returns it. Training uses its size,
            interpolation, channels and normalization; evaluation uses the complete transform.
        batch_size: Number of images in a global batch. Each process gets an equal, contiguous part of it. The last
            batch of an evaluation contains the remaining images.
        training: Whether the batches are for training: shuffled, augmented and endless.
        seed: Random seed, at least 0.
        augmentation: `Augmentation`, a mapping of its fields, or None to crop as in evaluation. Only for training.
        mixing: `Mixing`, a mapping of its fields, or None. Only for training.
        balance: `"weights"` adds sample weights that are inversely proportional to the number of images of the class,
            with a mean of 1; `"sampling"` draws all classes equally often; None does neither. Only for training.
        process_index: Index of this process, from 0 to `process_count - 1`.
        process_count: Number of processes that share a batch.
        workers: Number of processes that read images; 0 for threads of this process, one per core, at most 8.
            Processes are started with `multiprocessing`'s "spawn" method, so a program needs
            `if __name__ == "__main__":`.
        soft_targets: Targets that replace the labels, `(len(examples), classes)`, for example from `blend_targets`; or
            None. Only for training.
        damaged_limit: Maximum number of damaged images to skip; None for 1% of the images, but at least 10.
        data_format: `"channels_last"` or `"channels_first"`; None for the format of `preprocessing`.

    Attributes:
        steps_per_epoch: Number of batches per epoch. In training, an incomplete last batch is dropped. If there are
            fewer images than `batch_size`, an epoch is one batch in which images repeat.
        waited_s: Seconds spent waiting for batches, over all iterations.

    Raises:
        ValueError: An argument is invalid.
    """

    def __init__(
        self,
        examples: Examples,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        training: bool,
        seed: int = 0,
        augmentation: Augmentation | Mapping[str, Any] | None = None,
        mixing: Mixing | Mapping[str, Any] | None = None,
        balance: str | None = None,
        process_index: int = 0,
        process_count: int = 1,
        workers: int = 0,
        soft_targets: np.ndarray | None = None,
        damaged_limit: int | None = None,
        data_format: str | None = None,
    ):
        if not len(examples):
            raise ArgumentError("examples is empty: pass at least one image.")
        batch_size, process_count = integer("batch_size", batch_size, 1), integer("process_count", process_count, 1)
        seed, mixing = integer("seed", seed, 0), _as_settings("mixing", Mixing, mixing)
        augmentation = _as_settings("augmentation", Augmentation, augmentation)
        process_index = integer("process_index", process_index, 0)
        if process_index >= process_count:
            raise ArgumentError(
                f"process_index={process_index!r} is not allowed: with process_count={process_count} it must be at "
                f"most {process_count - 1}."
            )
        if batch_size % process_count:
            raise ArgumentError(
                f"batch_size={batch_size} is not allowed: it must be a multiple of process_count={process_count}, so "
                "that every process gets an equal part."
            )
        if mixing and process_count > 1 and batch_size // process_count % 2:
            raise ArgumentError(
                f"batch_size={batch_size} is not allowed: with mixing, the number of images in each of the "
                f"{process_count} processes must be even, got {batch_size // process_count}."
            )
        one_of("balance", balance, BALANCES)
        if not training and (augmentation or mixing or balance or soft_targets is not None):
            raise ArgumentError(
                "augmentation, mixing, balance and soft_targets are only allowed with training=True: leave them out."
            )
        if soft_targets is not None:
            soft_targets, expected = np.asarray(soft_targets, "float32"), (len(examples), len(examples.class_names))
            if soft_targets.shape != expected:
                raise ArgumentError(
                    f"soft_targets of shape {soft_targets.shape} are not allowed: the shape must be {expected}."
                )
        if data_format is not None:
            one_of("data_format", data_format, ("channels_last", "channels_first"))
            preprocessing = dataclasses.replace(preprocessing, data_format=data_format)
        if damaged_limit is None:
            damaged_limit = max(10, math.ceil(len(examples) / 100))
        self.examples, self.training = examples, training
        self.workers = integer("workers", workers, 0)
        self.damaged_limit = integer("damaged_limit", damaged_limit, 0)
        order = Order(examples.labels, batch_size, seed, balance == "sampling") if training else None
        self.steps_per_epoch = order.steps_per_epoch if order is not None else math.ceil(len(examples) / batch_size)
        self._loader = Loader(
            examples,
            preprocessing,
            batch_size,
            process_index,
            process_count,
            seed,
            order,
            augmentation,
            mixing,
            class_weights(examples.counts) if balance == "weights" else None,
            soft_targets,
            self.damaged_limit,
        )
        self._damaged = {}
        self.waited_s = 0.0

    def batches(self, first_step: int = 0) -> Any:
        """Return batches for `keras.Model.fit`, `evaluate`, `predict` and `for` loops.

        A batch is `(images, targets)` or `(images, targets, weights)` in float32. The images have the shape
        `(n, height, width, channels)` or `(n, channels, height, width)`, the targets `(n, classes)`, and the weights
        `(n,)`. Training batches never end, so `fit` needs `steps_per_epoch`.

        Args:
            first_step: Step to start with, counted from 0 over all epochs. Earlier steps are not loaded.

        Returns:
            `Batches`.
        """
        return Batches(self, integer("first_step", first_step, 0))

    def dataset(self, first_step: int) -> Any:
        """Return a `grain.IterDataset` of the loader's results, one per step."""
        end_step = first_step + _MANY_STEPS if self.training else max(first_step, self.steps_per_epoch)
        threads = 1 if self.workers else min(_core_count(), _MAX_THREADS)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
        dataset = grain.MapDataset.range(first_step, end_step).map(self._loader).to_iter_dataset(options)
        if not self.workers:
            return dataset
        if not flags.FLAGS.is_parsed():  # Grain reads an absl flag to start processes.
            flags.FLAGS.mark_as_parsed()
        processes = grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=1)
        return dataset.mp_prefetch(processes, worker_init_fn=_lightweight_worker_init())

    def indices(self, step: int) -> list[int]:
        """Return the indices of the examples in this process's part of a step's batch, ignoring damaged images."""
        order, first_index = self._loader.order, step * self._loader.batch_size
        return [order(step, i) if order else first_index + i for i in self._loader.positions(step)]

    @property
    def damaged(self) -> list[ImageError]:
        """An `ImageError` for each damaged image found so far, in the order of the examples."""
        return [ImageError(message) for _, message in sorted(self._damaged.items())]

    def note(self, damaged: Iterable[tuple[int, str]]) -> None:
        """Record damaged images.

        Args:
            damaged: `(index, message)` of each damaged image.

        Raises:
            ImageError: More images than the limit are damaged, or all images are.
        """
        self._damaged.update(damaged)
        count, total = len(self._damaged), len(self.examples)
        if count > self.damaged_limit or count == total:
            first_messages = " ".join(str(error) for error in self.damaged[:_SHOWN])
            limit, remedy = "", ""
            if count > self.damaged_limit:
                limit = f", but at most {self.damaged_limit} may be skipped"
                remedy = ", or allow more with damaged_limit"
            raise ImageError(
                f"{count} of {total} images can't be read{limit}. The first: {first_messages} Fix or remove "
                f"them{remedy}."
            )


def _as_settings(argument, settings_class, value):
    if value is None or isinstance(value, settings_class):
        return value
    if isinstance(value, Mapping):
        names = [field.name for field in dataclasses.fields(settings_class)]
        for name in value:
            one_of(f"field name in {argument}", name, names)
        return settings_class(**value)
    raise ArgumentError(
        f"{argument} of type {type(value).__name__} is not allowed: pass {settings_class.__name__}, a mapping of its "
        "fields, or None."
    )


def _core_count():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _lightweight_worker_init():
    """Return the function that a worker process runs first, so that it reads images without importing Keras.

    Importing `mobilenet_zoo` or `mobilenet_zoo.training` imports Keras and its backend, and unpickling an object from
    one of these packages imports the package. `start` replaces them with empty packages that have the same submodules,
    unless the worker has already imported them with the program's main module. `start` is nested so that it is pickled
    by value rather than by name.
    """
    packages = {name: list(sys.modules[name].__path__) for name in ("mobilenet_zoo", "mobilenet_zoo.training")}

    def start(index, count):
        import sys
        import types

        for name, path in packages.items():
            if name not in sys.modules:
                sys.modules[name] = types.ModuleType(name)
                sys.modules[name].__path__ = path

    return start
