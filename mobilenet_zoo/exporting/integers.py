"""Preparation of a model for int8 quantization: cross-layer equalization and bias correction."""

from mobilenet_zoo.exporting.equalization import equalize
from mobilenet_zoo.exporting.simulation import Simulation

_MAX_PIXELS = 32 * 224 * 224  # enough pixels for stable means and ranges, few enough to fit in memory
_MIN_IMAGES, _MAX_IMAGES = 16, 64


def improve(model, images, levels=127):
    """Change the weights of a prepared model so that rounding to 8 bits changes its outputs as little as possible.

    Cross-layer equalization leaves the float outputs the same. Bias correction changes them slightly, to compensate for
    rounding.

    Args:
        model: Model from `prepare` that takes batches of any size. Its weights are changed and frozen.
        images: Array of images in the model's data format and value range.
        levels: Largest integer that weights are rounded to.
    """
    model.trainable = False  # Otherwise, PyTorch would keep every activation for gradients.
    images = limit_images(images)
    equalize(model, images, levels)
    Simulation(model, images, levels).correct_biases()


def limit_images(images):
    """Return the first images, as many as suffice for statistics and fit in memory."""
    height, width = sorted(images.shape[1:])[1:]  # The channel axis is the shortest one, in both data formats.
    return images[: max(_MIN_IMAGES, min(_MAX_IMAGES, _MAX_PIXELS // (height * width)))]
