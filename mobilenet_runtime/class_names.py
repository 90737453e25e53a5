"""Decode a classifier's outputs into class names and probabilities."""

import functools
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from mobilenet_common.errors import ArgumentError, integer
from mobilenet_runtime.images import as_numpy


class Prediction(NamedTuple):
    """A predicted class of an image.

    Attributes:
        id: WordNet synset of an ImageNet class, such as `"n02504458"`; for other classes, the class number as a string.
        name: Human-readable name of the class.
        probability: Probability that the model assigns to the class.
    """

    id: str
    name: str
    probability: float


def decode_predictions(
    probabilities: np.ndarray, top: int = 5, class_names: Sequence[str] | str | None = None
) -> list[Any]:
    """Return the most likely classes of each image.

    Args:
        probabilities: Array or tensor of any backend, of shape `(batch, classes)`, or `(classes,)` for one image.
        top: Number of classes to return for each image, at least 1.
        class_names: A name for each class. None uses the classes of ImageNet-1k in the order of their synsets,
            optionally preceded by a background class, as in the models of TF-Slim and transformers.

    Returns:
        A list with one list of `top` `Prediction`s per image, most likely first. For a single image without a batch
        axis, only its list of `Prediction`s.

    Raises:
        ValueError: If the number of classes and the number of names differ, or if `top` is less than 1.
    """
    values = as_numpy(probabilities)
    if class_names is not None:
        classes = [(str(i), str(name)) for i, name in enumerate(class_names)]
    elif values.shape[-1:] == (len(imagenet_classes()) + 1,):
        classes = [BACKGROUND, *imagenet_classes()]
    else:
        classes = imagenet_classes()
    if values.ndim not in (1, 2) or values.shape[-1] != len(classes):
        hint = " Pass your own names as class_names." if class_names is None else ""
        raise ArgumentError(
            f"probabilities of shape {values.shape} are not allowed: they must be (batch, {len(classes)}), since "
            f"there are {len(classes)} class names.{hint}"
        )
    top = min(integer("top", top, 1), len(classes))
    if values.ndim == 1:
        return _decoded(values, top, classes)
    return [_decoded(row, top, classes) for row in values]


BACKGROUND = ("background", "background")


def _decoded(row, top, classes):
    order = np.argsort(-row, kind="stable")[:top]
    return [Prediction(classes[index][0], classes[index][1], float(row[index])) for index in order]


@functools.cache
def imagenet_classes():
    """Return `[(synset, name)]` of the ImageNet-1k classes, in the order of a classifier's outputs."""
    text = resources.files("mobilenet_runtime").joinpath("imagenet1k_classes.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line]
    return [(row[1], row[2]) for row in rows if row[0].isdigit()]
