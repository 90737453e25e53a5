"""Read images from files, bytes, arrays or PIL images into upright 8-bit images with one or three channels."""

import io
import os
import threading

import numpy as np

from mobilenet_common.errors import ArgumentError, MobileNetError
from mobilenet_common.libraries import import_library
from mobilenet_common.notices import warn

MOST_PIXELS = 178_956_970  # above this, Pillow rejects an image as a decompression bomb
ORIENTATION, UPRIGHT = 0x0112, 1  # the EXIF orientation tag, and its value for an image that needs no rotation
_NEARLY_BLACK = (
    "The image's pixels are floats of at most 1, which is nearly black because 255 is white: multiply them by 255."
)


class ImageError(MobileNetError, ValueError):
    """An image that can't be read: it is not an image, is damaged, or has too many pixels."""


def open_image(image, channels=3):
    """Return an upright PIL image with 8 bits per channel, in grayscale or RGB.

    A PIL image that already meets these conditions is returned unchanged, without a copy.

    Args:
        image: A path, a PIL image, an array of pixels in 0..255 with shape `(height, width)` or `(height, width,
            channels)` and 1, 3 or 4 channels, the bytes of an image file, or a file opened in binary mode. An open
            file is read from its current position to its end and is not closed. If it is seekable, its position is
            restored afterwards.
        channels: Number of channels of the result: 1 for grayscale, 3 for RGB.

    Raises:
        ImageError: If the image can't be read.

    Warns:
        MobileNetWarning: If the pixels are floats of at most 1, which is nearly black because 255 is white.
    """
    if channels not in (1, 3):
        raise ArgumentError(
            f"Images can be read with 1 or 3 channels, but this model takes {channels}: preprocess its input yourself."
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
    if opened.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT:  # exif_transpose copies even an upright image
        opened = pillow("ImageOps").exif_transpose(opened)
    opened, mode = _eight_bits(opened, image_module), "RGB" if channels == 3 else "L"
    return opened if opened.mode == mode else opened.convert(mode)


def is_encoded(image):
    """Return whether `image` is an encoded image: the bytes of an image file, or an open file."""
    if isinstance(image, memoryview):  # a memoryview with more axes or larger items is an array of pixels
        return image.ndim == 1 and image.itemsize == 1
    return isinstance(image, (bytes, bytearray)) or callable(getattr(image, "read", None))


def decoded(image):
    """Return a PIL image with its pixels and EXIF data loaded. Safe to call from several threads.

    Pillow loads an opened image lazily on its first use, and fails if two threads do so at the same time.
    """
    with vars(image).setdefault("_mobilenet_lock", threading.Lock()):  # PIL images have no lock
        image.load()
        image.getexif()
    return image


def pillow(module):
    """Import and return a module of Pillow."""
    return import_library(f"PIL.{module}", "hub", "Reading images")


def as_numpy(array):
    """Return an array or tensor of any library as a NumPy array."""
    if hasattr(array, "detach"):  # a PyTorch tensor may require gradients or be on a GPU
        array = array.detach().cpu()
    return np.asarray(array)


def _content_of(image):
    """Return the bytes of an encoded image and the name that messages use for it."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        if not len(image):
            raise ImageError("The image bytes are empty: pass the content of an image file.")
        return bytes(image), "The image in the given bytes"
    path = getattr(image, "name", None)
    name = f"The open file {path}" if isinstance(path, (str, os.PathLike)) else "The given file object"
    try:
        start = image.tell() if image.seekable() else None
    except (AttributeError, OSError, ValueError):  # reading works without seeking
        start = None
    try:
        content = image.read()
    except Exception as error:  # a closed or write-only file; a custom file object may raise anything
        raise ImageError(f"{name} can't be read: {error}.") from error
    if not isinstance(content, (bytes, bytearray, memoryview)):
        if hasattr(content, "close"):
            content.close()  # an unclosed coroutine would warn that it was never awaited
        raise ImageError(
            f"{name} returns {type(content).__name__} instead of bytes when it is read: open it in binary mode ('rb')."
        )
    if not len(content):
        reason = f"has no data after position {start}: call seek(0) first" if start else "is empty: pass an image file"
        raise ImageError(f"{name} {reason}.")
    if start is not None:
        image.seek(start)
    return bytes(content), name


def _from_file(file, path, image_module):
    """Return the image in a file or at a path; messages refer to it as `path`."""
    try:
        image = image_module.open(file)
        _check_size(image, path)
        image.load()
    except ImageError:
        raise
    except image_module.DecompressionBombError as error:
        raise ImageError(f"{path} has too many pixels (over {MOST_PIXELS:,}): scale it down first.") from error
    except Exception as error:  # Pillow's decoders raise many types of errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(file, io.BytesIO):  # Pillow's message holds the object's address
            reason = "Pillow does not know the format, or the data is damaged" if "BytesIO" in reason else reason
        raise ImageError(f"{path} can't be read as an image: {reason}.") from error
    return image


def _check_size(image, name):
    if image.width * image.height > MOST_PIXELS:
        raise ImageError(
            f"{name} has {image.width} × {image.height} pixels, but at most {MOST_PIXELS:,} are allowed: scale it down "
            "first."
        )


def _from_array(array, image_module):
    array = as_numpy(array)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))
    if not fits or array.dtype.kind not in "uif" or not array.size:
        hint = " Pass the content of an image file as bytes: array.tobytes()." if array.ndim == 1 else ""
        raise ImageError(
            f"An array of shape {array.shape} and type {array.dtype} is not an image: pass (height, width) or "
            f"(height, width, 3) with pixels in 0..255.{hint}"
        )
    if array.dtype != np.uint8:
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 255:
            raise ImageError("An array's pixels must be in 0..255.")
        if array.dtype.kind == "f" and 0 < array.max() <= 1:
            warn(_NEARLY_BLACK)
        array = np.rint(array).astype("uint8")
    return image_module.fromarray(array)


def _eight_bits(image, image_module):
    """Convert 16-bit grayscale and float images to 8 bits: Pillow would clip the former and not round the latter."""
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
