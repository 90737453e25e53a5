"""A crop of an image at the size that is wanted, decoding no more of a JPEG than it takes."""

import contextlib
import math
import os

from mobilenet_runtime.images import ORIENTATION, ImageError, open_image, pillow

# A crop is decoded at no less than this many times its final size: for Pillow hard to tell from one of the whole.
_GAP = 2.0
_ON_ITS_SIDE = (5, 6, 7, 8)  # values of EXIF's orientation


def open_crop(image, name, channels, size, interpolation, crop):
    """Return part of an image, upright, as a PIL image in mode RGB or L.

    Args:
        image: A path, a PIL image or an array, as `open_image` takes it.
        name: What messages call it.
        channels: 1 for gray, 3 for RGB.
        size: Height and width of the result.
        interpolation: `"nearest"`, `"bilinear"`, `"bicubic"` or `"lanczos"`.
        crop: Gives `(left, top, right, bottom)` for the upright image's width and height.

    Raises:
        ImageError: The image can't be read.
    """
    if isinstance(image, (str, os.PathLike)):
        with contextlib.ExitStack() as files:
            with _unreadable(name):
                file = files.enter_context(pillow("Image").open(image))
                turned = file.getexif().get(ORIENTATION) in _ON_ITS_SIDE
            whole = file.size[::-1] if turned else file.size
            box = crop(*whole)
            _draft(file, min((box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0]) / _GAP)
            part = open_whole(file, name, channels)
    else:
        part = open_whole(image, name, channels)
        whole = part.size
        box = crop(*whole)
    across, down = part.width / whole[0], part.height / whole[1]
    box = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    resampling = getattr(pillow("Image").Resampling, interpolation.upper())
    return part.resize(size[::-1], resampling, box=box, reducing_gap=_GAP)


def open_whole(image, name, channels):
    """Return what `open_image` does, with the image's name in every error, also for a PIL image decoded only now."""
    with _unreadable(name), contextlib.ExitStack() as files:
        if isinstance(image, (str, os.PathLike)):
            image = files.enter_context(pillow("Image").open(image))
        return open_image(image, channels)


def _draft(file, shrinking):
    """Let a JPEG be decoded at a half, quarter or eighth of its size, by no more than `shrinking`."""
    if file.format == "JPEG" and shrinking >= 2:
        file.draft(None, tuple(math.ceil(n / shrinking) for n in file.size))


@contextlib.contextmanager
def _unreadable(name):
    try:
        yield
    except ImageError as error:
        if name in str(error):
            raise
        raise ImageError(f"{name}: {error}") from None
    except Exception as error:  # Pillow's formats raise whatever their decoders do
        raise ImageError(f"{name} can't be read as an image: {str(error) or type(error).__name__}.") from None
