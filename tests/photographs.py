"""Photographs that scikit-learn ships, in the shapes and modes in which pictures come."""

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

LANDSCAPE, PORTRAIT = "china", "flower"


def photograph(name=LANDSCAPE):
    """A PIL image: a landscape of 640×427 pixels or a portrait of 301×427."""
    images = {LANDSCAPE: load_sample_images().images[0], PORTRAIT: load_sample_images().images[1]}
    picture = Image.fromarray(images[name])
    return picture if name == LANDSCAPE else picture.crop((150, 0, 451, 427))


def modes():
    """`{what: PIL image}`: the landscape in each mode that cameras, scanners and programs write."""
    picture = photograph()
    alpha = Image.fromarray((np.indices((427, 640)).sum(0) % 256).astype("uint8"))
    return {
        "rgb": picture,
        "grey": picture.convert("L"),
        "rgba": Image.merge("RGBA", (*picture.split(), alpha)),
        "grey and alpha": Image.merge("LA", (picture.convert("L"), alpha)),
        "palette": picture.convert("P", palette=Image.Palette.ADAPTIVE),
        "cmyk": picture.convert("CMYK"),
        "black and white": picture.convert("1"),
        "ycbcr": picture.convert("YCbCr"),
    }


def sixteen_bit(picture):
    """A grey picture with 16 bits a pixel."""
    values = np.asarray(picture.convert("L")).astype("uint16") * 257
    return Image.fromarray(values)


def rotated_by_exif(picture, orientation):
    """The file of a picture that is stored turned, with the note that says so."""
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture.transpose(turns[orientation]).save(file, "PNG", exif=exif)
    file.seek(0)
    return file
