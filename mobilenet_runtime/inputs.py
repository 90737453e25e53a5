"""Convert arrays to model inputs: normalize integer pixels, and warn about floats in an unexpected range."""

import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_common.notices import warn_once
from mobilenet_runtime.transform import normalize

_MOST_NORMALIZED = 16.0  # larger than any normalized pixel, but nearly black on the 0..255 scale
_BEYOND = 0.25  # how far interpolation may overshoot the range, as a fraction of the range


def as_model_input(images, transform, owner, name, what="images"):
    """Return images as the float32 array that a model expects.

    Integers are pixels in 0..255. They are normalized unless the model normalizes its input itself. Floats are used
    unchanged.

    Args:
        images: An array of shape `(batch, height, width, channels)` or `(batch, channels, height, width)`.
        transform: The model's `Preprocessing`, with the data format of `images`.
        owner: The object that warnings belong to: each kind of warning is issued once per owner.
        name: Name of the model or file, for messages.
        what: Name of the argument, for messages.

    Raises:
        ValueError: If integers are outside 0..255, or if the array holds neither integers nor floats.

    Warns:
        MobileNetWarning: If floats are NaN or infinite, or outside the range that the model was trained on.
    """
    images = np.asarray(images)
    if images.dtype.kind in "ui":
        if images.size and (images.min() < 0 or images.max() > 255):
            raise ArgumentError(
                f"{what} of type {images.dtype} with values from {images.min()} to {images.max()} are not allowed: "
                "integers must be pixels in 0..255."
            )
        return transform.normalized(images)
    if images.dtype.kind != "f" and images.dtype.name != "bfloat16":
        raise ArgumentError(f"{what} of type {images.dtype} are not allowed: pass floats, or integers in 0..255.")
    images = images.astype("float32", copy=False)
    is_finite = np.isfinite(images)
    if not is_finite.all():
        count = images.size - np.count_nonzero(is_finite)
        message = f"{what} have {count} NaN or infinite values out of {images.size}: check how they were computed."
        warn_once(owner, message, kind=f"{what}: not finite")
    finite = images if is_finite.all() else images[is_finite]
    kind, fault = _fault(finite, transform, name) if finite.size else (None, None)
    if fault is not None:
        warn_once(owner, f"{what} {fault}", kind=f"{what}: {kind}")
    return images


def _fault(images, transform, name):
    """Return `(kind, description)` of what is wrong with the range of finite floats, or `(None, None)`."""
    low, high = float(images.min()), float(images.max())
    value_range = f"range from {low:.3g} to {high:.3g}"
    if transform.mean is None:
        if low < 0 and high <= _MOST_NORMALIZED:
            fault = f"{value_range} and look normalized, but {name} takes pixels in 0..255 and normalizes them itself."
            return "normalized", fault
        if low >= 0 and 0 < high <= 1:
            return "unit", f"{value_range}, but {name} takes pixels in 0..255: multiply them by 255."
        if low < -255 * _BEYOND or high > 255 * (1 + _BEYOND):
            return "beyond", f"{value_range}, but {name} takes pixels in 0..255."
        return None, None
    mean, std = np.asarray(transform.mean), np.asarray(transform.std)
    lowest, highest = float(normalize(0.0, mean, std).min()), float(normalize(255.0, mean, std).max())
    remedy = "pass pixels as integers (uint8), or normalize them with mobilenet_zoo.preprocessing(model)"
    expected = f"{name} takes images normalized to {lowest:.3g}..{highest:.3g}"
    margin = _BEYOND * (highest - lowest)
    if low < lowest - margin or high > highest + margin:
        if low >= 0 and _MOST_NORMALIZED < high <= 255:
            return "pixels", f"{value_range} and look like pixels in 0..255, but {expected}: {remedy}."
        return "beyond", f"{value_range}, but {expected}: {remedy}."
    if lowest < 0 <= low < high <= 1:
        return "unit", f"{value_range} and look like pixels in 0..1, but {expected}: {remedy}."
    return None, None
