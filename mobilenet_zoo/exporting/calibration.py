"""The images that a file is calibrated and compared with."""

import dataclasses
import os

import numpy as np

from mobilenet_common.errors import ArgumentError, ExportError
from mobilenet_common.notices import warn
from mobilenet_runtime.images import as_numpy, is_encoded, pillow
from mobilenet_runtime.inputs import as_model_input
from mobilenet_runtime.reading import batches, find_images, skipped
from mobilenet_runtime.transform import normalize

LEAST = 16  # to calibrate with
_HELD_OUT = 0.2
_MOST_CHECKED = 200
_MOST = 256  # to calibrate with; ranges hardly change after that
_MADE = 4


@dataclasses.dataclass(frozen=True)
class Images:
    """Images as the model takes them, channels last.

    Attributes:
        calibration: To find ranges with, or None.
        checked: To compare the file with the model on.
        labels: The classes of `checked`, or None.
    """

    calibration: np.ndarray | None
    checked: np.ndarray
    labels: np.ndarray | None = None


def made_up(shape, scaling, batch_size):
    """Return smooth random images of `(height, width, channels)`, for a file that needs no calibration.

    Args:
        shape: Of an image.
        scaling: `(mean, std)` of each channel for pixels in 0..1, or None for pixels in 0..255.
        batch_size: The file's, or None.
    """
    random = np.random.default_rng(0)
    height, width, channels = shape
    count = max(_MADE, batch_size or 0)
    coarse = random.uniform(0, 1, (count, min(8, height), min(8, width), channels))
    rows = np.arange(height) * coarse.shape[1] // height
    columns = np.arange(width) * coarse.shape[2] // width
    values = 0.7 * coarse[:, rows][:, :, columns] + 0.3 * random.uniform(0, 1, (count, height, width, channels))
    pixels = np.rint(255 * values).astype("float32")
    return Images(None, pixels if scaling is None else normalize(pixels, *np.asarray(scaling, "float32")))


def read_calibration(calibration, transform, model):
    """Return the user's images, a fifth of them held out.

    Args:
        calibration: A folder, paths or patterns; an array `(n, height, width, channels)` of floats as the model takes
            them or of integers, which are pixels in 0..255; a list of PIL images, bytes or open files; or a pair of one
            of these and the class of each image.
        transform: The model's `Preprocessing`, channels last.
        model: That is exported.

    Raises:
        ExportError: They are too few, can't be read, or don't fit the model or their labels.

    Warns:
        MobileNetWarning: An array's floats are not in the range that the model takes, or files were skipped.
    """
    labels = None
    if isinstance(calibration, tuple) and len(calibration) == 2:
        calibration, labels = calibration
        labels = as_numpy(labels)
    if isinstance(calibration, (str, os.PathLike)):
        calibration = [calibration]
    if isinstance(calibration, (list, tuple)) and all(isinstance(item, (str, os.PathLike)) for item in calibration):
        paths = find_images(calibration)
        if labels is not None and labels.shape != (len(paths),):
            raise ExportError(f"calibration has {len(paths)} images and labels of shape {labels.shape}: one each.")
        images, kept = _from_files(paths, transform)
        labels = None if labels is None else labels[kept]
    elif isinstance(calibration, (list, tuple)) and all(map(_is_whole, calibration)):
        images = transform(calibration)
    else:
        images = as_numpy(calibration)
    shape = (*transform.size, transform.channels)
    if images.ndim != 4 or images.shape[1:] != shape:
        raise ExportError(
            f"calibration holds images of shape {images.shape[1:]}, but the file will take {shape}: give files, or "
            "an array of that shape."
        )
    if len(images) < LEAST:
        raise ExportError(
            f"calibration holds {len(images)} images that can be read, and at least {LEAST} are needed: give more "
            "of what the model will see; a few hundred are usual."
        )
    if images.dtype.kind not in "uib" and not np.isfinite(images).all():
        raise ExportError("calibration holds numbers that are not finite: look at how the array was made.")
    try:
        images = as_model_input(images, transform, model, model.name, "The calibration images")
    except ArgumentError as error:
        raise ExportError(str(error)) from error
    if labels is not None and labels.shape != (len(images),):
        raise ExportError(f"calibration has {len(images)} images and labels of shape {labels.shape}: one each.")
    order = np.random.default_rng(0).permutation(len(images))
    out = max(4, int(len(images) * _HELD_OUT))
    chosen, rest = order[:out][:_MOST_CHECKED], order[out:]
    return Images(images[rest[:_MOST]], images[chosen], None if labels is None else labels[chosen])


def _is_whole(image):
    """Return whether it is an image of any size, and not an array."""
    return is_encoded(image) or isinstance(image, pillow("Image").Image)


def _from_files(paths, transform):
    """Return the images that can be read, and which of the paths they are."""
    arrays, kept, failures, place = [], [], [], {path: i for i, path in enumerate(paths)}
    for good, read, failed in batches(paths, transform, 16) if paths else []:
        if good:
            arrays.append(read)
            kept += [place[path] for path in good]
        failures += failed
    if not arrays:
        reason = f": {failures[0]}" if failures else ", as there is none."
        raise ExportError(f"calibration holds no image that can be read{reason}")
    if failures:
        warn(skipped(failures, len(paths), "calibration"))
    return np.concatenate(arrays), np.array(kept)
