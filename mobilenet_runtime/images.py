"""Reading images, whatever they come as, into upright 8-bit ones of one or three channels."""

import io
import os
import threading

import numpy as np

from mobilenet_common.errors import ArgumentError, MobileNetError
from mobilenet_common.libraries import import_library
from mobilenet_common.notices import warn

MOST_PIXELS = 178_956_970  # where Pillow too takes an image for a bomb
ORIENTATION, UPRIGHT = 0x0112, 1  # a tag of EXIF, and its value where nothing is to be turned
_NEARLY_BLACK = "An image's pixels are floats of at most 1, nearly black, since 255 is white: multiply by 255."


class ImageError(MobileNetError, ValueError):
    """An image that can't be read: no image, damaged, or too large to be meant."""


def open_image(image, channels=3):
    """Return a PIL image, upright, in 8 bits a channel, gray or RGB; the given one itself where it is that already.

    Args:
        image: A path, a PIL image, an array `(height, width[, 1, 3 or 4])` of pixels in 0..255, the bytes of an image
            file, or a file that is open for reading bytes. A file is read from its current position to its end, where
            it can seek put back to that position, and not closed.
        channels: 1 for gray, 3 for RGB.

    Raises:
        ImageError: It can't be read.

    Warns:
        MobileNetWarning: Floats are at most 1: nearly black, since 255 is white.
    """
    if channels not in (1, 3):
        raise ArgumentError(
            f"Images have 1 or 3 channels, and this model takes {channels}: prepare its input yourself."
        )
    image_module = pillow("Image")
    if isinstance(image, (str, os.PathLike)):
        opened = _from_file(image, image, image_module)
    elif isinstance(image, image_module.Image):
        _check_size(image, "The image")
        opened = decoded(image)
    elif is_encoded(image):
        content, name = _content_of(image)
        opened = _from_file(io.BytesIO(content), name, image_module)
    else:
        opened = _from_array(image, image_module)
    if opened.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT:  # else Pillow would copy it
        opened = pillow("ImageOps").exif_transpose(opened)
    opened, mode = _eight_bits(opened, image_module), "RGB" if channels == 3 else "L"
    return opened if opened.mode == mode else opened.convert(mode)


def is_encoded(image):
    """Return whether `image` is the content of an image file: bytes, or an open file."""
    if isinstance(image, memoryview):  # another one is an array
        return image.ndim == 1 and image.itemsize == 1
    return isinstance(image, (bytes, bytearray)) or callable(getattr(image, "read", None))


def decoded(image):
    """Return a PIL image after reading its pixels and EXIF data, which it does once, whatever thread comes first.

    Pillow reads an image that was only opened when it is first used, and breaks when two threads do so at once.
    """
    with vars(image).setdefault("_mobilenet_lock", threading.Lock()):  # a lock of its own: the image has none
        image.load()
        image.getexif()
    return image


def pillow(module):
    """Return a module of Pillow, which is imported when first needed."""
    return import_library(f"PIL.{module}", "hub", "Reading images")


def as_numpy(array):
    """Return an array or tensor of any library as one of NumPy."""
    if hasattr(array, "detach"):  # PyTorch's may have a gradient, or be on a GPU
        array = array.detach().cpu()
    return np.asarray(array)


def _content_of(image):
    """Return the bytes of an encoded image, and what messages call it."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        if not len(image):
            raise ImageError("The bytes given are empty: give the content of an image file.")
        return bytes(image), "The image in the bytes given"
    path = getattr(image, "name", None)
    name = f"The open file {path}" if isinstance(path, (str, os.PathLike)) else "The file object given"
    try:
        start = image.tell() if image.seekable() else None
    except (AttributeError, OSError, ValueError):  # neither is needed to read
        start = None
    try:
        content = image.read()
    except Exception as error:  # closed, not for reading, or whatever an object of the user's raises
        raise ImageError(f"{name} can't be read: {error}.") from error
    if not isinstance(content, (bytes, bytearray, memoryview)):
        if hasattr(content, "close"):
            content.close()  # a coroutine, which would else warn that nobody awaited it
        raise ImageError(
            f"{name} gives {type(content).__name__} and not bytes when it is read: open it in binary mode, 'rb'."
        )
    if not len(content):
        place = f" from its position {start} on" if start else ""
        hint = ": call seek(0) first" if start else ": give an image file"
        raise ImageError(f"{name} is empty{place}{hint}.")
    if start is not None:
        image.seek(start)
    return bytes(content), name


def _from_file(file, path, image_module):
    """Return the image in a file or at a path; messages call it `path`."""
    try:
        image = image_module.open(file)
        _check_size(image, path)
        image.load()
    except ImageError:
        raise
    except image_module.DecompressionBombError as error:
        raise ImageError(f"{path} has more pixels than are taken ({MOST_PIXELS:,}): scale it down first.") from error
    except Exception as error:  # Pillow's formats raise whatever their decoders do
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(file, io.BytesIO):  # whose address Pillow names
            reason = "Pillow does not know its format, or it is damaged" if "BytesIO" in reason else reason
        raise ImageError(f"{path} can't be read as an image: {reason}.") from error
    return image


def _check_size(image, name):
    if image.width * image.height > MOST_PIXELS:
        raise ImageError(
            f"{name} has {image.width} × {image.height} pixels, more than the {MOST_PIXELS:,} that are taken: scale it "
            "down first."
        )


def _from_array(array, image_module):
    array = as_numpy(array)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))
    if not fits or array.dtype.kind not in "uif" or not array.size:
        hint = " The content of an image file goes in as bytes: array.tobytes()." if array.ndim == 1 else ""
        raise ImageError(
            f"An array of shape {array.shape} and type {array.dtype} is no image: give (height, width) or (height, "
            f"width, 3) with pixels in 0..255.{hint}"
        )
    if array.dtype != np.uint8:
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 255:
            raise ImageError("An array's pixels must be in 0..255.")
        if array.dtype.kind == "f" and 0 < array.max() <= 1:
            warn(_NEARLY_BLACK)
        array = np.rint(array).astype("uint8")
    return image_module.fromarray(array)


def _eight_bits(image, image_module):
    """Return 16-bit gray in 8 bits, which Pillow itself would clip; and floats, which it would not round."""
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        if 0 < values.max(initial=0) <= 1:
            warn(_NEARLY_BLACK)
        return image_module.fromarray(np.rint(values.clip(0, 255)).astype("uint8"))
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype("int64")
    if image.mode == "I" and values.max(initial=0) <= 255:
        return image_module.fromarray(values.clip(0).astype("uint8"))
    return image_module.fromarray((values.clip(0, 65535) >> 8).astype("uint8"))
