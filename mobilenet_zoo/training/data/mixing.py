"""Mixup and CutMix of neighbors in a batch."""

import dataclasses
import math

import numpy as np

from mobilenet_zoo.training.recipes import recipe


@dataclasses.dataclass(frozen=True)
class Mixing(recipe.Mixing):
    """Mixes example 2i of a batch with example 2i + 1, all pairs alike, as timm's `mode="batch"` does with its pairs.

    Mixup (Zhang et al., 2018) adds the two with the weights λ and 1 - λ; CutMix (Yun et al., 2019) puts a rectangle of
    the one, a share 1 - λ of its area, into the other. Targets and weights are always added. λ is drawn once a step,
    from Beta(α, α). An example without a neighbor stays as it is.

    The fields are those of a recipe, which also says what each may hold.
    """

    def draw(self, height, width, rng):
        """Return a step's mix: `(λ, None)`: mixup, `(λ, (top, bottom, left, right))`: CutMix, None: neither."""
        if not (self.mixup or self.cutmix) or rng.random() >= self.probability:
            return None
        if not self.cutmix or (self.mixup and rng.random() >= self.switch_probability):
            return rng.beta(self.mixup, self.mixup), None
        share = math.sqrt(1 - rng.beta(self.cutmix, self.cutmix))
        top, bottom = _cut(height, share, rng)
        left, right = _cut(width, share, rng)
        return 1 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right)

    def __call__(self, images, targets, weights, rng, channels_last=True):
        """Mix a batch in place.

        Args:
            images: Float32 `(n, height, width, channels)`, or with channels first.
            targets: Float32 `(n, classes)`.
            weights: Float32 `(n,)`, or None.
            rng: A NumPy generator; all shares of a batch must be given equal ones.
            channels_last: Where the channels are.
        """
        height, width = images.shape[1:3] if channels_last else images.shape[2:4]
        drawn = self.draw(height, width, rng)
        if drawn is None:
            return
        amount, box = drawn
        if box is None:
            _add(images, amount)
        else:
            rows, columns = slice(*box[:2]), slice(*box[2:])
            _add(images[:, rows, columns] if channels_last else images[:, :, rows, columns], 0.0)
        _add(targets, amount)
        if weights is not None:
            _add(weights, amount)


def _add(values, amount):
    """Mix `amount` of each and `1 - amount` of its neighbor; 0 exchanges them."""
    pairs = len(values) // 2 * 2
    even, odd = values[0:pairs:2], values[1:pairs:2]
    if amount == 0:
        even[...], odd[...] = odd.copy(), even.copy()
        return
    amount = np.float32(amount)
    difference = (even - odd) * (1 - amount)
    even -= difference
    odd += difference


def _cut(length, share, rng):
    """Return a stretch of `share` of a length around a point of it, ending at its ends."""
    middle, half = int(rng.integers(length)), int(length * share) // 2
    return max(middle - half, 0), min(middle + half, length)
