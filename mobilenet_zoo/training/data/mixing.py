"""Mixup and CutMix of neighboring images in a batch."""

import dataclasses
import math

import numpy as np

from mobilenet_zoo.training.recipes import recipe


@dataclasses.dataclass(frozen=True)
class Mixing(recipe.Mixing):
    """Mixes each pair of neighbors in a batch, examples 2i and 2i + 1, with the same λ for all pairs.

    timm's `mode="batch"` also uses one λ for all of its pairs. Mixup (Zhang et al., 2018) adds the two images with the
    weights λ and 1 - λ. CutMix (Yun et al., 2019) pastes a rectangle of one image, a fraction 1 - λ of its area, into
    the other. Both add the targets and the sample weights with the weights λ and 1 - λ. λ is drawn once per step from
    Beta(α, α). An example without a neighbor is not changed.

    The fields and their allowed values are those of the recipe section `mixing`.
    """

    def draw(self, height, width, rng):
        """Draw the mix of a step.

        Returns:
            `(λ, None)` for mixup, `(λ, (top, bottom, left, right))` for CutMix, or None to leave the batch unmixed.
        """
        if not (self.mixup or self.cutmix) or rng.random() >= self.probability:
            return None
        if not self.cutmix or (self.mixup and rng.random() >= self.switch_probability):
            return rng.beta(self.mixup, self.mixup), None
        fraction = math.sqrt(1 - rng.beta(self.cutmix, self.cutmix))
        top, bottom = _cut_range(height, fraction, rng)
        left, right = _cut_range(width, fraction, rng)
        return 1 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right)

    def __call__(self, images, targets, weights, rng, channels_last=True):
        """Mix a batch in place.

        Args:
            images: Float32 images `(n, height, width, channels)`, or `(n, channels, height, width)`.
            targets: Float32 targets `(n, classes)`.
            weights: Float32 sample weights `(n,)`, or None.
            rng: NumPy generator. All processes that share the batch must pass generators in the same state.
            channels_last: Whether the channels are the last axis of `images`.
        """
        height, width = images.shape[1:3] if channels_last else images.shape[2:4]
        mix = self.draw(height, width, rng)
        if mix is None:
            return
        ratio, box = mix
        if box is None:
            _mix_pairs(images, ratio)
        else:
            rows, columns = slice(*box[:2]), slice(*box[2:])
            _mix_pairs(images[:, rows, columns] if channels_last else images[:, :, rows, columns], 0.0)
        _mix_pairs(targets, ratio)
        if weights is not None:
            _mix_pairs(weights, ratio)


def _mix_pairs(values, ratio):
    """Give each example `ratio` of itself and `1 - ratio` of its neighbor; a ratio of 0 swaps them."""
    pairs = len(values) // 2 * 2
    first, second = values[0:pairs:2], values[1:pairs:2]
    if ratio == 0:
        first[...], second[...] = second.copy(), first.copy()
        return
    ratio = np.float32(ratio)
    difference = (first - second) * (1 - ratio)
    first -= difference
    second += difference


def _cut_range(length, fraction, rng):
    """Return a range that covers `fraction` of a length, around a random center; it is clipped at both ends."""
    center, half = int(rng.integers(length)), int(length * fraction) // 2
    return max(center - half, 0), min(center + half, length)
