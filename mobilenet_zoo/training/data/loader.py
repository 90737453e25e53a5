"""Loading the batch of a step from the step number alone; runs in threads and worker processes."""

import dataclasses

import numpy as np

from mobilenet_runtime.examples.examples import Examples
from mobilenet_runtime.images import ImageError
from mobilenet_runtime.transform import Preprocessing
from mobilenet_zoo.training.data.augmentation import Augmentation
from mobilenet_zoo.training.data.decoding import open_crop, open_whole
from mobilenet_zoo.training.data.mixing import Mixing
from mobilenet_zoo.training.data.orders import Order

_IMAGE, _BATCH = 2, 3  # Keys of the random streams of images and batches; `orders.py` has that of the order.


@dataclasses.dataclass
class Loader:
    """Loads this process's part of the batch of any step.

    Attributes:
        examples, preprocessing, batch_size, process_index, process_count, seed: As in `Pipeline`.
        order: `Order` of training; None for evaluation, which takes the images in their given order.
        augmentation, mixing: As in `Pipeline`; for training only.
        weights: Sample weight of each class, float32 `(classes,)`, or None.
        soft_targets: As in `Pipeline`.
        damaged_limit: Maximum number of damaged images in a batch; with more, loading the batch fails.
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
        transform = self.preprocessing
        ones = np.ones((1 if transform.data_format == "channels_first" else transform.size[1], transform.channels))
        mean, std = (0.0, 1 / 255) if transform.mean is None else (np.array(transform.mean), np.array(transform.std))
        self._factor = (ones / (255 * std)).astype("float32").ravel()
        self._offset = (-ones * mean / std).astype("float32").ravel()

    def positions(self, step):
        """Return the range of this process's positions in the global batch; whole batches are split equally."""
        size = self.batch_size
        if self.order is None:
            size = min(size, len(self.examples) - step * size)
        first, end = (size * i // self.process_count for i in (self.process_index, self.process_index + 1))
        return range(first, end)

    def __call__(self, step):
        """Load the batch of a step.

        Returns:
            A dictionary with "batch", a tuple `(images, targets[, weights])`, or None if nothing could be loaded;
            "indices", the indices of the batch's examples, or None; and "damaged", a tuple of `(index, message)` of
            each damaged image.
        """
        damaged = {}
        positions = self.positions(step)
        indices, images = [], np.empty((len(positions), *self._shape), "float32")
        for position in positions:
            index = self._read_image(step, position, images[len(indices)], damaged)
            if index is not None:
                indices.append(index)
            if len(damaged) > self.damaged_limit:
                break
        is_failed = len(damaged) > self.damaged_limit or not indices
        return {
            "batch": None if is_failed else self._make_batch(step, images[: len(indices)], indices),
            "indices": None if is_failed else np.array(indices, "int64"),
            "damaged": tuple(damaged.items()),
        }

    @property
    def _shape(self):
        height, width = self.preprocessing.size
        channels = self.preprocessing.channels
        is_channels_last = self.preprocessing.data_format == "channels_last"
        return (height, width, channels) if is_channels_last else (channels, height, width)

    def _read_image(self, step, position, out, damaged):
        """Load an image into `out` and return its index, or None if no image can be loaded."""
        if self.order is None:
            candidates = [step * self.batch_size + position]
        else:  # Replace a damaged image by the next one in the epoch's order, which depends only on the seed.
            candidates = (self.order(step, position, offset) for offset in range(len(self.examples)))
        for index in candidates:
            if index in damaged:
                continue
            try:
                self._load_image(index, np.random.default_rng((self.seed, _IMAGE, step, position)), out)
                return index
            except ImageError as error:
                damaged[index] = str(error)
                if len(damaged) > self.damaged_limit:
                    break
        return None

    def _load_image(self, index, rng, out):
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
        """Normalize uint8 pixels into float32, in two operations on long rows: NumPy is slow on rows of 3 elements."""
        if self.preprocessing.data_format == "channels_first":
            for c, plane in enumerate(out):
                np.multiply(pixels[:, :, c], self._factor[c], out=plane)
                plane += self._offset[c]
            return
        rows = out.reshape(len(out), -1)
        np.multiply(pixels.reshape(rows.shape), self._factor, out=rows)
        rows += self._offset

    def _make_batch(self, step, images, indices):
        labels = self.examples.labels[indices]
        if self.soft_targets is None:
            targets = np.zeros((len(indices), len(self.examples.class_names)), "float32")
            targets[np.arange(len(indices)), labels] = 1
        else:
            targets = self.soft_targets[indices]  # Indexing copies, so mixing can modify the targets.
        weights = None if self.weights is None else self.weights[labels]
        if self.mixing is not None:
            rng = np.random.default_rng((self.seed, _BATCH, step))
            self.mixing(images, targets, weights, rng, self.preprocessing.data_format == "channels_last")
        return (images, targets) if weights is None else (images, targets, weights)
