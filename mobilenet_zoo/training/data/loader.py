"""The batch of a step, from the number of the step alone: what threads and worker processes run."""

import dataclasses

import numpy as np

from mobilenet_runtime.examples.examples import Examples
from mobilenet_runtime.images import ImageError
from mobilenet_runtime.transform import Preprocessing
from mobilenet_zoo.training.data.augmentation import Augmentation
from mobilenet_zoo.training.data.decoding import open_crop, open_whole
from mobilenet_zoo.training.data.mixing import Mixing
from mobilenet_zoo.training.data.orders import Order

_IMAGE, _BATCH = 2, 3  # keep the draws for images and batches apart from each other and from the order's


@dataclasses.dataclass
class Loader:
    """Gives this process's share of the batch of any step.

    Attributes:
        examples, preprocessing, batch_size, process_index, process_count, seed: As in `Pipeline`.
        order: Of training; None for evaluation, which takes the images as they come.
        augmentation, mixing: As in `Pipeline`; for training only.
        weights: `(classes,)` float32, or None.
        soft_targets: As in `Pipeline`.
        damaged_limit: With more damaged images than this in one batch it gives up.
    """

    examples: Examples
    preprocessing: Preprocessing
    batch_size: int
    process_index: int
    process_count: int
    seed: int
    order: Order | None
    augmentation: Augmentation | None
    mixing: Mixing | None
    weights: np.ndarray | None
    soft_targets: np.ndarray | None
    damaged_limit: int

    def __post_init__(self):
        shape = self.preprocessing
        ones = np.ones((1 if shape.data_format == "channels_first" else shape.size[1], shape.channels))
        mean, std = (0.0, 1 / 255) if shape.mean is None else (np.array(shape.mean), np.array(shape.std))
        self._factor = (ones / (255 * std)).astype("float32").ravel()
        self._offset = (-ones * mean / std).astype("float32").ravel()

    def positions(self, step):
        """Return where this process's share lies in the global batch of a step: contiguous, equal for whole batches."""
        size = self.batch_size
        if self.order is None:
            size = min(size, len(self.examples) - step * size)
        first, last = (size * i // self.process_count for i in (self.process_index, self.process_index + 1))
        return range(first, last)

    def __call__(self, step):
        """Return `{"batch", "indices", "damaged"}` of a step.

        Returns:
            The batch `(images, targets[, weights])`, or None where nothing could be read; the indices of its
            examples; and `(index, message)` of each image that is damaged.
        """
        damaged = {}
        positions = self.positions(step)
        taken, images = [], np.empty((len(positions), *self._shape), "float32")
        for position in positions:
            index = self._read(step, position, images[len(taken)], damaged)
            if index is not None:
                taken.append(index)
            if len(damaged) > self.damaged_limit:
                break
        failed = len(damaged) > self.damaged_limit or not taken
        return {
            "batch": None if failed else self._batch(step, images[: len(taken)], taken),
            "indices": None if failed else np.array(taken, "int64"),
            "damaged": tuple(damaged.items()),
        }

    @property
    def _shape(self):
        height, width = self.preprocessing.size
        channels = self.preprocessing.channels
        last = self.preprocessing.data_format == "channels_last"
        return (height, width, channels) if last else (channels, height, width)

    def _read(self, step, position, out, damaged):
        """Put an image into `out` and return its index, or None where there is no good one."""
        if self.order is None:
            candidates = [step * self.batch_size + position]
        else:  # in place of a damaged one the next of the epoch, so that it depends on nothing else
            candidates = (self.order(step, position, further) for further in range(len(self.examples)))
        for index in candidates:
            if index in damaged:
                continue
            try:
                self._fill(index, np.random.default_rng((self.seed, _IMAGE, step, position)), out)
                return index
            except ImageError as error:
                damaged[index] = str(error)
                if len(damaged) > self.damaged_limit:
                    break
        return None

    def _fill(self, index, rng, out):
        image, name = self.examples.images[index], self.examples.name_of(index)
        transform, augmentation = self.preprocessing, self.augmentation
        if self.order is None:
            out[...] = transform(open_whole(image, name, transform.channels))
            return
        if augmentation is not None and augmentation.crop_scale is not None:
            crop = open_crop(
                image,
                name,
                transform.channels,
                transform.size,
                transform.interpolation,
                lambda width, height: augmentation.crop(width, height, rng),
            )
        else:
            crop = transform.pixels(open_whole(image, name, transform.channels))
        pixels = np.asarray(crop) if augmentation is None else augmentation(crop, rng)
        self._normalize(pixels.reshape(*transform.size, -1), out)

    def _normalize(self, pixels, out):
        """Normalize uint8 into float32 by one product and one sum over long rows: NumPy is slow at rows of three."""
        if self.preprocessing.data_format == "channels_first":
            for c, plane in enumerate(out):
                np.multiply(pixels[:, :, c], self._factor[c], out=plane)
                plane += self._offset[c]
            return
        rows = out.reshape(len(out), -1)
        np.multiply(pixels.reshape(rows.shape), self._factor, out=rows)
        rows += self._offset

    def _batch(self, step, images, taken):
        labels = self.examples.labels[taken]
        if self.soft_targets is None:
            targets = np.zeros((len(taken), len(self.examples.class_names)), "float32")
            targets[np.arange(len(taken)), labels] = 1
        else:
            targets = self.soft_targets[taken]  # a copy, which mixing may change
        weights = None if self.weights is None else self.weights[labels]
        if self.mixing is not None:
            rng = np.random.default_rng((self.seed, _BATCH, step))
            self.mixing(images, targets, weights, rng, self.preprocessing.data_format == "channels_last")
        return (images, targets) if weights is None else (images, targets, weights)
