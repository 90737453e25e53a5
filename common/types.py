"""Types that public signatures share."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, Union

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

PathLike: TypeAlias = str | os.PathLike[str]
# An image: a file's path, its bytes, an open file, PIL's, or an array of pixels `(height, width[, channels])`.
ImageLike: TypeAlias = Union[PathLike, bytes, BinaryIO, np.ndarray, "Image.Image"]
# A tensor of the running backend, or Keras's symbolic one; their types have no base in common.
Tensor: TypeAlias = Any
# A batched shape, such as `(None, 224, 224, 3)`; None where an axis is free.
Shape: TypeAlias = tuple[int | None, ...]
# A name that `keras.activations.get` knows, a function of tensors, or None for none.
Activation: TypeAlias = str | Callable[..., Any] | None
