"""The order of the training images, as a function of the seed and the epoch."""

import functools

import numpy as np

_ORDER = 1  # Key of the order's random stream; `loader.py` has those of images and batches.


class Order:
    """Order of the images in training.

    Args:
        labels: `(n,)` class indices of the images.
        batch_size: Number of images per batch. An epoch has as many batches as the images fill, but at least one.
        seed: Random seed, at least 0.
        balanced: Whether to draw all classes equally often, rather than each image once.
    """

    def __init__(self, labels, batch_size, seed, balanced=False):
        self.steps_per_epoch = max(1, len(labels) // batch_size)
        self._labels, self._batch_size, self._seed, self._balanced = labels, batch_size, seed, balanced
        self._epoch_order = functools.lru_cache(maxsize=2)(self._draw_order)  # Threads may be in two epochs at once.

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_epoch_order"}

    def __setstate__(self, state):
        vars(self).update(state)
        self._epoch_order = functools.lru_cache(maxsize=2)(self._draw_order)

    def __call__(self, step, position, offset=0):
        """Return the index of the image at a position of a step's batch.

        Args:
            step: Step, counted from 0 over all epochs.
            position: Position in the batch.
            offset: Number of images to move ahead in the order of the epoch.
        """
        epoch, step = divmod(step, self.steps_per_epoch)
        order = self._epoch_order(epoch)
        return int(order[(step * self._batch_size + position + offset) % len(order)])

    def _draw_order(self, epoch):
        rng = np.random.default_rng((self._seed, _ORDER, epoch))
        if not self._balanced:
            return rng.permutation(len(self._labels))
        members_by_class = [rng.permutation(members) for members in _members_by_class(self._labels)]
        per_class, remainder = divmod(len(self._labels), len(members_by_class))
        larger_classes = set(rng.permutation(len(members_by_class))[:remainder].tolist())
        samples = [np.resize(members, per_class + (i in larger_classes)) for i, members in enumerate(members_by_class)]
        return rng.permutation(np.concatenate(samples))


def class_weights(counts):
    """Return float32 class weights `(classes,)`: inversely proportional to the counts, with a mean of 1 over images."""
    counts = np.asarray(counts)
    weights = np.zeros(len(counts))
    present = counts > 0
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights.astype("float32")


def _members_by_class(labels):
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]
