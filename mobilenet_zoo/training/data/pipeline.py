"""Batches for `fit` and `evaluate`, made ready by Grain's threads or processes."""

import dataclasses
import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from absl import flags  # Grain's own need

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
_ENDLESS = 2**40  # steps
_MOST_THREADS = 8  # each holds a batch
_SHOWN = 3


class Pipeline:
    """Batches of images and targets, the same on every backend.

    In training every epoch has an order of its own. What the batch of step k holds depends on the seed, on k and on
    the place in the global batch alone: not on workers, on processes, or on the step that one started from.

    Args:
        examples: `Examples`.
        preprocessing: A `Preprocessing`, as `mobilenet_zoo.preprocessing(model)` gives it: size, normalization,
            channels, and in evaluation the whole transform.
        batch_size: Of the global batch; a process gets an equal, contiguous share of it. The last batch of an
            evaluation is what remains.
        training: Whether to shuffle, to augment, and to go on without end.
        seed: At least 0.
        augmentation: `Augmentation`, a mapping of its fields, or None for images as in evaluation. For training.
        mixing: `Mixing`, a mapping of its fields, or None. For training.
        balance: `"weights"` gives sample weights inversely proportional to how many images the class has, of mean 1;
            `"sampling"` draws all classes equally often; None does neither. For training.
        process_index: Which process of `process_count` this is.
        process_count: How many share a batch.
        workers: Processes that read; 0 for threads of this one, as many as cores (8 at most). Processes are started
            as `multiprocessing`'s "spawn" does: a program needs `if __name__ == "__main__":`.
        soft_targets: What is learned in place of the labels, `(len(examples), classes)`, such as `blend_targets` makes
            of a teacher's predictions; or None. For training.
        damaged_limit: How many damaged images are skipped; None for 1% of the images, but at least 10.
        data_format: `"channels_last"` or `"channels_first"`; None for that of `preprocessing`.

    Attributes:
        steps_per_epoch: Whole batches in training (one at least, in which images repeat), all in evaluation.
        waited_s: Seconds that were spent waiting for batches, over all iterations.

    Raises:
        ValueError: An argument is wrong.
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
            raise ArgumentError("There are no images in examples: give at least one.")
        batch_size, process_count = integer("batch_size", batch_size, 1), integer("process_count", process_count, 1)
        seed, mixing = integer("seed", seed, 0), _settings("mixing", Mixing, mixing)
        augmentation = _settings("augmentation", Augmentation, augmentation)
        process_index = integer("process_index", process_index, 0)
        if process_index >= process_count:
            raise ArgumentError(
                f"process_index={process_index!r} is not allowed: with process_count={process_count} it must be at "
                f"most {process_count - 1}."
            )
        if batch_size % process_count:
            raise ArgumentError(
                f"batch_size={batch_size} is not allowed: it must be a multiple of process_count={process_count}, so "
                "that every process gets an equal share."
            )
        if mixing and process_count > 1 and batch_size // process_count % 2:
            raise ArgumentError(
                f"batch_size={batch_size} is not allowed: with mixing, the share of each of {process_count} processes "
                f"must be even; {batch_size // process_count} is not."
            )
        one_of("balance", balance, BALANCES)
        if not training and (augmentation or mixing or balance or soft_targets is not None):
            raise ArgumentError(
                "augmentation, mixing, balance and soft_targets are for training=True only: leave them out."
            )
        if soft_targets is not None:
            soft_targets, wanted = np.asarray(soft_targets, "float32"), (len(examples), len(examples.class_names))
            if soft_targets.shape != wanted:
                raise ArgumentError(
                    f"soft_targets of shape {soft_targets.shape} are not allowed: they must be {wanted}."
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

        Gives `(images, targets)` or `(images, targets, weights)`: float32 `(n, height, width, channels)`, or
        channels first, `(n, classes)` and `(n,)`. In training it has no end: give `fit` `steps_per_epoch`.

        Args:
            first_step: Number of the step to begin with, counted over all epochs. None before it is made.

        Returns:
            `Batches`.
        """
        return Batches(self, integer("first_step", first_step, 0))

    def dataset(self, first_step: int) -> Any:
        """Return the `grain.IterDataset` of what the loader gives for each step."""
        last = first_step + _ENDLESS if self.training else max(first_step, self.steps_per_epoch)
        threads = 1 if self.workers else min(_cores(), _MOST_THREADS)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
        made = grain.MapDataset.range(first_step, last).map(self._loader).to_iter_dataset(options)
        if not self.workers:
            return made
        if not flags.FLAGS.is_parsed():  # Grain asks for one when it starts processes, and few programs parse them
            flags.FLAGS.mark_as_parsed()
        processes = grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=1)
        return made.mp_prefetch(processes, worker_init_fn=_light_start())

    def indices(self, step: int) -> list[int]:
        """Return the examples that this process's share of a step's batch is made of, where no image is damaged."""
        order, first = self._loader.order, step * self._loader.batch_size
        return [order(step, i) if order else first + i for i in self._loader.positions(step)]

    @property
    def damaged(self) -> list[ImageError]:
        """An `ImageError` for each damaged image that was met so far, in the order of the images."""
        return [ImageError(message) for _, message in sorted(self._damaged.items())]

    def note(self, damaged: Iterable[tuple[int, str]]) -> None:
        """Take down the `(index, message)` of damaged images.

        Raises:
            ImageError: They are more than the limit, or all there are.
        """
        self._damaged.update(damaged)
        count, total = len(self._damaged), len(self.examples)
        if count > self.damaged_limit or count == total:
            first = " ".join(str(error) for error in self.damaged[:_SHOWN])
            raise ImageError(
                f"{count} of {total} images can't be read, and {self.damaged_limit} are skipped at most. The first: "
                f"{first} Fix or remove them, or allow more with damaged_limit."
            )


def _settings(argument, kind, value):
    if value is None or isinstance(value, kind):
        return value
    if isinstance(value, Mapping):
        names = [field.name for field in dataclasses.fields(kind)]
        for name in value:
            one_of(f"a name in {argument}", name, names)
        return kind(**value)
    raise ArgumentError(
        f"{argument} of type {type(value).__name__} is not allowed: give {kind.__name__}, a mapping of its fields, or "
        "None."
    )


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _light_start():
    """Return what a worker process runs first, so that it reads images without Keras and its backend.

    These packages import both when they are imported, and unpickling what is in them would. Where the main program
    has not imported them in the worker already, they become empty ones with the same modules below them. The function
    is nested, so that it is pickled whole rather than by name.
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
