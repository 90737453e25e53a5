"""Arrays that are given as a model takes them: integers are pixels, and floats of another range are warned of."""

import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_common.notices import warn_once
from mobilenet_runtime.transform import normalize

_MOST_NORMALIZED = 16.0  # above any normalized pixel, and nearly black among those in 0..255
_BEYOND = 0.25  # how far resizing may overshoot the range, as a fraction of it


def as_model_input(images, transform, owner, name, what="images"):
    """Return images as float32 that a model takes, `(batch, height, width, channels)` or channels first.

    Integers are pixels in 0..255 and are normalized, if the model doesn't do it. Floats are taken as they are.

    Args:
        images: An array.
        transform: The model's `Preprocessing`, in the data format of `images`.
        owner: The object whose warnings are given once.
        name: Of the model or file, for messages.
        what: The argument, for messages.

    Raises:
        ValueError: Integers outside of 0..255, or neither integers nor floats.

    Warns:
        MobileNetWarning: Floats are NaN or infinite, or not in the range that the model was trained on; each kind of
            fault once for `owner`.
    """
    images = np.asarray(images)
    if images.dtype.kind in "ui":
        if images.size and (images.min() < 0 or images.max() > 255):
            raise ArgumentError(
                f"{what} of type {images.dtype} with values from {images.min()} to {images.max()} are not allowed: "
                "integers are pixels in 0..255."
            )
        return transform.normalized(images)
    if images.dtype.kind != "f" and images.dtype.name != "bfloat16":
        raise ArgumentError(f"{what} of type {images.dtype} are not allowed: give floats, or integers in 0..255.")
    images = images.astype("float32", copy=False)
    is_finite = np.isfinite(images)
    if not is_finite.all():
        count = images.size - np.count_nonzero(is_finite)
        message = f"{what} have {count} of {images.size} values that are NaN or infinite: look at how they were made."
        warn_once(owner, message, kind=f"{what}: not finite")
    finite = images if is_finite.all() else images[is_finite]
    kind, fault = _fault(finite, transform, name) if finite.size else (None, None)
    if fault is not None:
        warn_once(owner, f"{what} {fault}", kind=f"{what}: {kind}")
    return images


def _fault(images, transform, name):
    """Return what is wrong with the range of finite floats: its kind, and the end of a sentence; or `(None, None)`."""
    low, high = float(images.min()), float(images.max())
    given = f"range from {low:.3g} to {high:.3g}"
    if transform.mean is None:
        if low < 0 and high <= _MOST_NORMALIZED:
            return "normalized", f"{given} and look normalized, but {name} takes pixels in 0..255 and normalizes them."
        if low >= 0 and 0 < high <= 1:
            return "unit", f"{given}, but {name} takes pixels in 0..255: multiply them by 255."
        if low < -255 * _BEYOND or high > 255 * (1 + _BEYOND):
            return "beyond", f"{given}, but {name} takes pixels in 0..255."
        return None, None
    mean, std = np.asarray(transform.mean), np.asarray(transform.std)
    lowest, highest = float(normalize(0.0, mean, std).min()), float(normalize(255.0, mean, std).max())
    remedy = "give pixels as integers (uint8), or normalize them with mobilenet_zoo.preprocessing(model)"
    wanted = f"{name} takes images that are normalized to {lowest:.3g}..{highest:.3g}"
    margin = _BEYOND * (highest - lowest)
    if low < lowest - margin or high > highest + margin:
        if low >= 0 and _MOST_NORMALIZED < high <= 255:
            return "pixels", f"{given} and look like pixels in 0..255, but {wanted}: {remedy}."
        return "beyond", f"{given}, but {wanted}: {remedy}."
    if lowest < 0 <= low < high <= 1:
        return "unit", f"{given} and look like pixels in 0..1, but {wanted}: {remedy}."
    return None, None
