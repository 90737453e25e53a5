"""What a model needs so that 8-bit integers cost it little: equal ranges, and biases that make up for rounding."""

from mobilenet_zoo.exporting.equalization import equalize
from mobilenet_zoo.exporting.simulation import Simulation

_PIXELS = 32 * 224 * 224  # that are looked at: enough for means and ranges, and for the memory
_FEWEST, _MOST = 16, 64  # images


def improve(model, images, levels=127):
    """Change the weights of a prepared model so that it computes the same in float and nearly the same in integers.

    Args:
        model: As `prepare` made it, for batches of any size. Its weights are frozen.
        images: An array, as the model takes them.
        levels: The largest whole number that a weight becomes.
    """
    model.trainable = False  # PyTorch would keep every activation for gradients
    images = seen(images)
    equalize(model, images, levels)
    Simulation(model, images, levels).correct_biases()


def seen(images):
    """Return as many of the images as are enough."""
    height, width = sorted(images.shape[1:])[1:]  # channels are the fewest, in either layout
    return images[: max(_FEWEST, min(_MOST, _PIXELS // (height * width)))]
