"""Images for the calibration of an exported file and for its comparison with the model."""

import dataclasses
import os

import numpy as np

from mobilenet_common.errors import ArgumentError, ExportError
from mobilenet_common.notices import warn
from mobilenet_runtime.images import as_numpy, is_encoded, pillow
from mobilenet_runtime.inputs import as_model_input
from mobilenet_runtime.reading import batches, find_images, skipped
from mobilenet_runtime.transform import normalize

_MIN_IMAGES = 16
_VALIDATION_FRACTION = 0.2
_MAX_VALIDATION_IMAGES = 200
_MAX_CALIBRATION_IMAGES = 256  # With more images, the ranges hardly change.
_GENERATED_IMAGES = 4


@dataclasses.dataclass(frozen=True)
class Images:
    """Images in the value range that the model takes, channels last.

    Attributes:
        calibration: Calibration images, from which activation ranges are computed, or None.
        checked: Validation images, on which the file is compared with the model.
        labels: Classes of the validation images, or None.
    """

    calibration: np.ndarray | None
    checked: np.ndarray
    labels: np.ndarray | None = None


def generate_images(shape, scaling, batch_size):
    """Return smooth random validation images, for a file that needs no calibration.

    Args:
        shape: Shape of an image, `(height, width, channels)`.
        scaling: `(mean, std)` per channel by which the images are normalized, for pixels in 0..1. With None, the images
            stay pixels in 0..255.
        batch_size: Batch size of the file, or None. At least this many images are generated.

    Returns:
        `Images` without calibration images and labels.
    """
    random = np.random.default_rng(0)
    height, width, channels = shape
    count = max(_GENERATED_IMAGES, batch_size or 0)
    coarse = random.uniform(0, 1, (count, min(8, height), min(8, width), channels))
    rows = np.arange(height) * coarse.shape[1] // height
    columns = np.arange(width) * coarse.shape[2] // width
    values = 0.7 * coarse[:, rows][:, :, columns] + 0.3 * random.uniform(0, 1, (count, height, width, channels))
    pixels = np.rint(255 * values).astype("float32")
    return Images(None, pixels if scaling is None else normalize(pixels, *np.asarray(scaling, "float32")))


def read_calibration(calibration, transform, model):
    """Read the user's images, and split a fifth of them off as the validation set.

    Args:
        calibration: A folder, paths or patterns; an array `(n, height, width, channels)`, either of floats that are
            passed to the model unchanged or of integers, which are pixels in 0..255; a list of PIL images, bytes or
            open files; or a tuple of one of these and the class of each image.
        transform: The model's `Preprocessing`, channels last.
        model: Model that is exported.

    Returns:
        The `Images`, with calibration and validation images.

    Raises:
        ExportError: There are too few images, they can't be read, or they don't match the model or their labels.

    Warns:
        MobileNetWarning: The floats of an array are outside the range that the model takes, or damaged files were
            skipped.
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
            raise ExportError(
                f"calibration has {len(paths)} images, but labels of shape {labels.shape}: pass one label per image."
            )
        images, indices = _from_files(paths, transform)
        labels = None if labels is None else labels[indices]
    elif isinstance(calibration, (list, tuple)) and all(map(_is_image, calibration)):
        images = transform(calibration)
    else:
        images = as_numpy(calibration)
    shape = (*transform.size, transform.channels)
    if images.ndim != 4 or images.shape[1:] != shape:
        raise ExportError(
            f"calibration has images of shape {images.shape[1:]}, but the exported file takes {shape}: pass image "
            "files, or an array with images of that shape."
        )
    if len(images) < _MIN_IMAGES:
        raise ExportError(
            f"calibration has {len(images)} readable images, but at least {_MIN_IMAGES} are required: pass more images "
            "like those that the model will see; a few hundred are usual."
        )
    if images.dtype.kind not in "uib" and not np.isfinite(images).all():
        raise ExportError("calibration contains NaN or infinity, but all values must be finite: check the array.")
    try:
        images = as_model_input(images, transform, model, model.name, "The calibration images")
    except ArgumentError as error:
        raise ExportError(str(error)) from error
    if labels is not None and labels.shape != (len(images),):
        raise ExportError(
            f"calibration has {len(images)} images, but labels of shape {labels.shape}: pass one label per image."
        )
    order = np.random.default_rng(0).permutation(len(images))
    count = max(4, int(len(images) * _VALIDATION_FRACTION))
    validation, rest = order[:count][:_MAX_VALIDATION_IMAGES], order[count:]
    return Images(
        images[rest[:_MAX_CALIBRATION_IMAGES]], images[validation], None if labels is None else labels[validation]
    )


def _is_image(image):
    """Return whether `image` is a PIL image, bytes or an open file, as opposed to an array."""
    return is_encoded(image) or isinstance(image, pillow("Image").Image)


def _from_files(paths, transform):
    """Return the readable images as an array, and the index of each in `paths`."""
    arrays, indices, failures, index_of = [], [], [], {path: i for i, path in enumerate(paths)}
    for readable, images, failed in batches(paths, transform, 16) if paths else []:
        if readable:
            arrays.append(images)
            indices += [index_of[path] for path in readable]
        failures += failed
    if not arrays:
        reason = f": {failures[0]}" if failures else ": no image files were found."
        raise ExportError(f"calibration has no readable images{reason}")
    if failures:
        warn(skipped(failures, len(paths), "calibration"))
    return np.concatenate(arrays), np.array(indices)
