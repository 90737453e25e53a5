"""Types that public signatures share."""

import os
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, Union

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

PathLike: TypeAlias = str | os.PathLike[str]
# An image: a file's path, its bytes, an open file, PIL's, or an array of pixels `(height, width[, channels])`.
ImageLike: TypeAlias = Union[PathLike, bytes, BinaryIO, np.ndarray, "Image.Image"]
