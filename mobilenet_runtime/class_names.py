"""What a classifier's predictions mean."""

import functools
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from mobilenet_common.errors import ArgumentError, integer
from mobilenet_runtime.images import as_numpy


class Prediction(NamedTuple):
    """One class that an image may show.

    Attributes:
        id: The WordNet synset of an ImageNet class, such as `"n02504458"`; of other classes the number.
        name: For people.
        probability: As the model gave it.
    """

    id: str
    name: str
    probability: float


def decode_predictions(
    probabilities: np.ndarray, top: int = 5, class_names: Sequence[str] | str | None = None
) -> list[Any]:
    """Return the likeliest classes of each image.

    Args:
        probabilities: `(batch, classes)`, or `(classes,)` of one image; of any backend.
        top: How many classes to give, at least 1.
        class_names: A name for each class; None for those of ImageNet-1k, in the order of its synsets. Before its
            thousand there may be one for the background, as in TF-Slim's and transformers' models.

    Returns:
        A list with a list of `top` `Prediction`s for each image, the likeliest first; for one image without a
        batch, that list alone.

    Raises:
        ValueError: The classes are not as many as the names, or `top` is less than 1.
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
            f"probabilities of shape {values.shape} are not allowed: they must be (batch, {len(classes)}), as there "
            f"are {len(classes)} class names.{hint}"
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
    """Return `[(synset, name)]` of ImageNet-1k's classes, in the order of the classifier's outputs."""
    text = resources.files("mobilenet_runtime").joinpath("imagenet1k_classes.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line]
    return [(row[1], row[2]) for row in rows if row[0].isdigit()]
