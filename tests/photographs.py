"""Photographs from scikit-learn in different sizes, PIL modes and file variants."""

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

LANDSCAPE, PORTRAIT = "china", "flower"


def photograph(name=LANDSCAPE):
    """Return a PIL image, 640×427 pixels for the landscape or 301×427 for the portrait."""
    images = {LANDSCAPE: load_sample_images().images[0], PORTRAIT: load_sample_images().images[1]}
    image = Image.fromarray(images[name])
    return image if name == LANDSCAPE else image.crop((150, 0, 451, 427))


def modes():
    """Return `{description: PIL image}`: the landscape in the modes that cameras, scanners and programs write."""
    image = photograph()
    alpha = Image.fromarray((np.indices((427, 640)).sum(0) % 256).astype("uint8"))
    return {
        "rgb": image,
        "gray": image.convert("L"),
        "rgba": Image.merge("RGBA", (*image.split(), alpha)),
        "gray and alpha": Image.merge("LA", (image.convert("L"), alpha)),
        "palette": image.convert("P", palette=Image.Palette.ADAPTIVE),
        "cmyk": image.convert("CMYK"),
        "black and white": image.convert("1"),
        "ycbcr": image.convert("YCbCr"),
    }


def sixteen_bit(image):
    """Return a gray copy of the image with 16 bits per pixel."""
    values = np.asarray(image.convert("L")).astype("uint16") * 257
    return Image.fromarray(values)


def rotated_by_exif(image, orientation):
    """Return a PNG file of the image, stored rotated and with the matching EXIF orientation."""
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.transpose(turns[orientation]).save(file, "PNG", exif=exif)
    file.seek(0)
    return file
