"""Photographs that scikit-learn ships, in the shapes and modes in which images come."""

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

LANDSCAPE, PORTRAIT = "china", "flower"


def photograph(name=LANDSCAPE):
    """A PIL image: a landscape of 640×427 pixels or a portrait of 301×427."""
    images = {LANDSCAPE: load_sample_images().images[0], PORTRAIT: load_sample_images().images[1]}
    image = Image.fromarray(images[name])
    return image if name == LANDSCAPE else image.crop((150, 0, 451, 427))


def modes():
    """`{what: PIL image}`: the landscape in each mode that cameras, scanners and programs write."""
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
    """A gray image with 16 bits a pixel."""
    values = np.asarray(image.convert("L")).astype("uint16") * 257
    return Image.fromarray(values)


def rotated_by_exif(image, orientation):
    """The file of an image that is stored turned, with the note that says so."""
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.transpose(turns[orientation]).save(file, "PNG", exif=exif)
    file.seek(0)
    return file
