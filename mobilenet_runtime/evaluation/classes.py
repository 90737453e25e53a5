"""Match the classes of a data set with the classes of a model."""

import collections

import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_runtime.class_names import BACKGROUND, imagenet_classes

_SHOWN = 10


def match_classes(data_names, model_names, outputs):
    """Match each class of the data with a class of the model by name, in any order.

    A model without class names is assumed to have the classes of ImageNet-1k if its number of outputs matches, with or
    without a background class. The data may then name classes by synset as well. Any other model without class names is
    assumed to have the classes of the data, in the same order.

    Args:
        data_names: Names of the data's classes.
        model_names: Names of the model's classes, or None.
        outputs: Number of outputs of the model.

    Returns:
        A tuple `(class_names, numbers)`: the name of each class of the model, and an int64 array of shape
        `(len(data_names),)` with the model's class number for each class of the data.

    Raises:
        ValueError: If the model doesn't have a class of the data, or if it has no names and a different number of
            classes.
    """
    data_names = tuple(map(str, data_names))
    synsets = {}
    if model_names is None:
        model_names, synsets = _of_imagenet(outputs, data_names)
    if model_names is None:
        if len(data_names) != outputs:
            raise ArgumentError(
                f"The data has {len(data_names)} classes, but the model has {outputs} classes and no names for them: "
                "save the model with class_names, or pass data with the same classes in the same order."
            )
        model_names = data_names
    model_names = tuple(map(str, model_names))
    if len(model_names) != outputs:
        raise ArgumentError(
            f"The model has {len(model_names)} class names, but {outputs} outputs: there must be one name per output."
        )
    if model_names == data_names:
        return model_names, np.arange(outputs)
    counts = collections.Counter(model_names)  # "crane" names two classes of ImageNet
    known = {name: number for number, name in enumerate(model_names) if counts[name] == 1} | synsets
    unknown = [name for name in data_names if name not in known]
    if unknown:
        raise ArgumentError(
            f"The model lacks {len(unknown)} of the data's {len(data_names)} classes: {_listed(unknown)}. The model's "
            f"classes are {_listed(model_names)}. Rename the data's classes, or remove the unknown ones."
        )
    return model_names, np.array([known[name] for name in data_names])


def _of_imagenet(outputs, data_names):
    """Return ImageNet's class names and `{synset: number}` if they fit the model and the data, else `(None, {})`."""
    classes = imagenet_classes()
    classes = [BACKGROUND, *classes][-outputs:] if outputs in (len(classes), len(classes) + 1) else []
    names, synsets = [name for _, name in classes], {synset: number for number, (synset, _) in enumerate(classes)}
    if not classes or (len(data_names) == outputs and not set(data_names) <= {*names, *synsets}):
        return None, {}
    return names, synsets


def _listed(names):
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
