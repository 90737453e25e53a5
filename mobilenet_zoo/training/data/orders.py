"""Which image comes when: a function of the seed and the epoch."""

import functools

import numpy as np

_ORDER = 1  # keeps the draws apart from those for images and batches


class Order:
    """The order of images in training.

    Args:
        labels: `(n,)` classes of the images.
        batch_size: How many make a batch; an epoch is as many whole ones as there are, but one at least.
        seed: At least 0.
        balanced: Whether classes are drawn equally often, instead of images.
    """

    def __init__(self, labels, batch_size, seed, balanced=False):
        self.steps_per_epoch = max(1, len(labels) // batch_size)
        self._labels, self._batch_size, self._seed, self._balanced = labels, batch_size, seed, balanced
        self._epoch = functools.lru_cache(maxsize=2)(self._drawn)  # two: threads are at the turn of epochs together

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_epoch"}

    def __setstate__(self, state):
        vars(self).update(state)
        self._epoch = functools.lru_cache(maxsize=2)(self._drawn)

    def __call__(self, step, position, further=0):
        """Return the image at a position of the batch of a step, or the one so much `further` in that epoch's order."""
        epoch, step = divmod(step, self.steps_per_epoch)
        order = self._epoch(epoch)
        return int(order[(step * self._batch_size + position + further) % len(order)])

    def _drawn(self, epoch):
        rng = np.random.default_rng((self._seed, _ORDER, epoch))
        if not self._balanced:
            return rng.permutation(len(self._labels))
        classes = [rng.permutation(members) for members in _members(self._labels)]
        share, rest = divmod(len(self._labels), len(classes))
        more = set(rng.permutation(len(classes))[:rest].tolist())
        drawn = [np.resize(members, share + (i in more)) for i, members in enumerate(classes)]
        return rng.permutation(np.concatenate(drawn))


def class_weights(counts):
    """Return `(classes,)` float32, inversely proportional to the counts, with a mean of 1 over the images."""
    counts = np.asarray(counts)
    weights = np.zeros(len(counts))
    present = counts > 0
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights.astype("float32")


def _members(labels):
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]
