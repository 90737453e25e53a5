"""What belongs to a model beside its layers: how pictures are made ready for it, and what its classes are called."""

import dataclasses
import weakref

import keras

from mobilenet_common.nesting import inner_mobilenet, last_layer
from mobilenet_zoo.registry import WEIGHTS


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known about a model.

    Attributes:
        size: Height and width of the pictures that it is evaluated with.
        crop: Share of the resized picture's shorter side that they take.
        interpolation: How pictures are resized.
        mean, std: Of each colour, for pixels in 0..1.
        class_names: A name for each output, or None.
        base: Name of the published weights that it started from, or None.
    """

    size: tuple[int, int]
    crop: float = 0.875
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    class_names: tuple[str, ...] | None = None
    base: str | None = None

    @classmethod
    def of_checkpoint(cls, checkpoint, size=None):
        """The facts of published weights, for pictures of `size` (height, width), by default that of the training."""
        size = (checkpoint.input_size,) * 2 if size is None else tuple(size)
        at = checkpoint.evaluation(min(size))
        return cls(size, at.crop, checkpoint.interpolation, checkpoint.mean, checkpoint.std, None, checkpoint.name)


_KNOWN = weakref.WeakKeyDictionary()


def remember(model, facts):
    """Keeps `facts` for as long as `model` lives; None is nothing to keep."""
    if facts is not None:
        _KNOWN[model] = facts
    return model


def facts_of(model):
    """The `Facts` of a model: those it was loaded with, or those of the published weights it is named after, or None.

    A model built from published weights is named after them, and keeps that name in its files. Of a model around such
    a one all is known but the names of its classes.
    """
    known = _KNOWN.get(model)
    if known is None and model.name in WEIGHTS:
        known = Facts.of_checkpoint(WEIGHTS[model.name])
    inner = inner_mobilenet(model) if known is None else None
    if inner is not None and (inside := facts_of(inner)) is not None:
        return dataclasses.replace(inside, class_names=None)
    return known


def is_classifier(model):
    """Whether a model gives classes: it has a classifier, ends in softmax or sigmoid, or has names for its classes."""
    outputs = getattr(model, "outputs", None) or ()
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        return False
    known, last = facts_of(model), last_layer(model)
    activation = getattr(last, "activation", None)
    return (
        (known is not None and known.class_names is not None)
        or last.name in ("classifier", "predictions")
        or isinstance(last, keras.layers.Softmax)
        or activation in (keras.activations.softmax, keras.activations.sigmoid)
    )
