"""Type aliases for public signatures."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, Union

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

PathLike: TypeAlias = str | os.PathLike[str]
# An image: a file path, encoded bytes, an open file, a PIL image, or a pixel array `(height, width[, channels])`.
ImageLike: TypeAlias = Union[PathLike, bytes, BinaryIO, np.ndarray, "Image.Image"]
# A tensor of the backend or a symbolic `KerasTensor`; these types have no common base class.
Tensor: TypeAlias = Any
# A shape with the batch axis, such as `(None, 224, 224, 3)`; None is an unknown size.
Shape: TypeAlias = tuple[int | None, ...]
# A name that `keras.activations.get` knows, a function of a tensor, or None for no activation.
Activation: TypeAlias = str | Callable[..., Any] | None
