"""Cropping and resizing of images, with JPEGs decoded at the smallest sufficient scale."""

import contextlib
import math
import os

from mobilenet_runtime.images import ORIENTATION, ImageError, open_image, pillow

# Decode a crop at no less than this multiple of its final size. The result is hard to tell from that of full decoding.
_REDUCING_GAP = 2.0
_ROTATED_ORIENTATIONS = (5, 6, 7, 8)  # Values of the EXIF orientation that swap width and height.


def open_crop(image, name, channels, size, interpolation, crop):
    """Return a resized crop of an upright image, as a PIL image in mode RGB or L.

    Args:
        image: A path, a PIL image or an array, as in `open_image`.
        name: Name of the image in error messages.
        channels: Number of channels: 1 for grayscale, 3 for RGB.
        size: Height and width of the result.
        interpolation: `"nearest"`, `"bilinear"`, `"bicubic"` or `"lanczos"`.
        crop: Function that takes the width and height of the upright image and returns the crop `(left, top, right,
            bottom)`.

    Raises:
        ImageError: The image can't be read.
    """
    if isinstance(image, (str, os.PathLike)):
        with contextlib.ExitStack() as files:
            with _name_in_errors(name):
                file = files.enter_context(pillow("Image").open(image))
                is_rotated = file.getexif().get(ORIENTATION) in _ROTATED_ORIENTATIONS
            full_size = file.size[::-1] if is_rotated else file.size
            box = crop(*full_size)
            _draft(file, min((box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0]) / _REDUCING_GAP)
            decoded = open_whole(file, name, channels)
    else:
        decoded = open_whole(image, name, channels)
        full_size = decoded.size
        box = crop(*full_size)
    x_scale, y_scale = decoded.width / full_size[0], decoded.height / full_size[1]
    box = (box[0] * x_scale, box[1] * y_scale, box[2] * x_scale, box[3] * y_scale)
    resampling = getattr(pillow("Image").Resampling, interpolation.upper())
    return decoded.resize(size[::-1], resampling, box=box, reducing_gap=_REDUCING_GAP)


def open_whole(image, name, channels):
    """Return the result of `open_image`; every error contains the image's name, including those of lazy decoding."""
    with _name_in_errors(name), contextlib.ExitStack() as files:
        if isinstance(image, (str, os.PathLike)):
            image = files.enter_context(pillow("Image").open(image))
        return open_image(image, channels)


def _draft(file, reduction):
    """Let Pillow decode a JPEG at a half, a quarter or an eighth of its size, reducing it at most by `reduction`."""
    if file.format == "JPEG" and reduction >= 2:
        file.draft(None, tuple(math.ceil(n / reduction) for n in file.size))


@contextlib.contextmanager
def _name_in_errors(name):
    try:
        yield
    except ImageError as error:
        if name in str(error):
            raise
        raise ImageError(f"{name}: {error}") from None
    except Exception as error:  # The decoders of Pillow's formats raise various types of exceptions.
        raise ImageError(f"{name} can't be read as an image: {str(error) or type(error).__name__}.") from None
