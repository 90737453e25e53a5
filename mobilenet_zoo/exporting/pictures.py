"""The pictures that a file is calibrated and compared with."""

import dataclasses
import os

import numpy as np

from mobilenet_common.errors import ArgumentError, ExportError
from mobilenet_common.notices import warn
from mobilenet_runtime.inputs import as_model_input
from mobilenet_runtime.pictures import as_numpy, is_encoded, pillow
from mobilenet_runtime.reading import batches, find_pictures, skipped
from mobilenet_runtime.transform import normalize

LEAST = 16  # to calibrate with
_HELD_OUT = 0.2
_MOST_CHECKED = 200
_MOST = 256  # to calibrate with; ranges hardly change after that
_MADE = 4


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures as the model takes them, channels last.

    Attributes:
        calibration: To find ranges with, or None.
        checked: To compare the file with the model on.
        labels: The classes of `checked`, or None.
    """

    calibration: np.ndarray | None
    checked: np.ndarray
    labels: np.ndarray | None = None


def made_up(shape, scaling, batch_size):
    """Smooth random pictures of `(height, width, channels)`, for a file that needs no calibration.

    Args:
        shape: Of a picture.
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
    return Pictures(None, pixels if scaling is None else normalize(pixels, *np.float32(scaling)))


def read(calibration, transform, model):
    """The user's pictures, a fifth of them held out.

    Args:
        calibration: A folder, paths or patterns; an array `(n, height, width, channels)` of floats as the model takes
            them or of integers, which are pixels in 0..255; a list of PIL images, bytes or open files; or a pair of one
            of these and the class of each picture.
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
    if isinstance(calibration, (list, tuple)) and all(isinstance(each, (str, os.PathLike)) for each in calibration):
        paths = find_pictures(calibration)
        if labels is not None and labels.shape != (len(paths),):
            raise ExportError(f"calibration has {len(paths)} pictures and labels of shape {labels.shape}: one each.")
        pictures, kept = _from_files(paths, transform)
        labels = None if labels is None else labels[kept]
    elif isinstance(calibration, (list, tuple)) and all(map(_is_whole, calibration)):
        pictures = transform(calibration)
    else:
        pictures = as_numpy(calibration)
    shape = (*transform.size, transform.channels)
    if pictures.ndim != 4 or pictures.shape[1:] != shape:
        raise ExportError(
            f"calibration holds pictures of shape {pictures.shape[1:]}, but the file will take {shape}: give files, or "
            "an array of that shape."
        )
    if len(pictures) < LEAST:
        raise ExportError(
            f"calibration holds {len(pictures)} pictures that can be read, and at least {LEAST} are needed: give more "
            "of what the model will see; a few hundred are usual."
        )
    if pictures.dtype.kind not in "uib" and not np.isfinite(pictures).all():
        raise ExportError("calibration holds numbers that are not finite: look at how the array was made.")
    try:
        pictures = as_model_input(pictures, transform, model, model.name, "The calibration images")
    except ArgumentError as error:
        raise ExportError(str(error)) from error
    if labels is not None and labels.shape != (len(pictures),):
        raise ExportError(f"calibration has {len(pictures)} pictures and labels of shape {labels.shape}: one each.")
    order = np.random.default_rng(0).permutation(len(pictures))
    out = max(4, int(len(pictures) * _HELD_OUT))
    chosen, rest = order[:out][:_MOST_CHECKED], order[out:]
    return Pictures(pictures[rest[:_MOST]], pictures[chosen], None if labels is None else labels[chosen])


def _is_whole(picture):
    """Whether it is a picture of any size, and not an array."""
    return is_encoded(picture) or isinstance(picture, pillow("Image").Image)


def _from_files(paths, transform):
    """The pictures that can be read, and which of the paths they are."""
    arrays, kept, failures, place = [], [], [], {path: i for i, path in enumerate(paths)}
    for good, read, failed in batches(paths, transform, 16) if paths else []:
        if good:
            arrays.append(read)
            kept += [place[path] for path in good]
        failures += failed
    if not arrays:
        reason = f": {failures[0]}" if failures else ", as there is none."
        raise ExportError(f"calibration holds no picture that can be read{reason}")
    if failures:
        warn(skipped(failures, len(paths), "calibration"))
    return np.concatenate(arrays), np.array(kept)
