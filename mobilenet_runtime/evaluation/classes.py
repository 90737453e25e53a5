"""Which of a model's classes those of the data are."""

import collections

import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_runtime.class_names import BACKGROUND, imagenet_classes

_SHOWN = 10


def match_classes(data_names, model_names, outputs):
    """Return the model's class for each of the data's, by name, whatever the order of either.

    A model without names that has as many outputs as ImageNet-1k has classes, or one more for the background, has
    ImageNet's, by synset or by name. Any other model without names takes the data's classes in their order.

    Args:
        data_names: Of the data's classes.
        model_names: Of the model's, or None.
        outputs: How many classes the model tells apart.

    Returns:
        `(class_names, numbers)`: a name for each of the model's classes, and `(len(data_names),)` int64, the model's
        number for each of the data's.

    Raises:
        ValueError: The model doesn't know a class, or has another number of classes and no names.
    """
    data_names = tuple(map(str, data_names))
    synsets = {}
    if model_names is None:
        model_names, synsets = _of_imagenet(outputs, data_names)
    if model_names is None:
        if len(data_names) != outputs:
            raise ArgumentError(
                f"The data has {len(data_names)} classes, but the model tells {outputs} apart and has no names for "
                "them: save it with class_names, or evaluate it on as many classes, in its order."
            )
        model_names = data_names
    model_names = tuple(map(str, model_names))
    if len(model_names) != outputs:
        raise ArgumentError(f"The model has names for {len(model_names)} classes, but {outputs} outputs.")
    if model_names == data_names:
        return model_names, np.arange(outputs)
    counts = collections.Counter(model_names)  # two of ImageNet's are called crane
    known = {name: number for number, name in enumerate(model_names) if counts[name] == 1} | synsets
    unknown = [name for name in data_names if name not in known]
    if unknown:
        raise ArgumentError(
            f"The model doesn't know {_listed(unknown)} among the data's {len(data_names)} classes. Its own are "
            f"{_listed(model_names)}: rename the data's classes, or leave those out."
        )
    return model_names, np.array([known[name] for name in data_names])


def _of_imagenet(outputs, data_names):
    """Return ImageNet's names and `{synset: number}` where the model has as many outputs and the data is of these."""
    classes = imagenet_classes()
    classes = [BACKGROUND, *classes][-outputs:] if outputs in (len(classes), len(classes) + 1) else []
    names, synsets = [name for _, name in classes], {synset: number for number, (synset, _) in enumerate(classes)}
    if not classes or (len(data_names) == outputs and not set(data_names) <= {*names, *synsets}):
        return None, {}
    return names, synsets


def _listed(names):
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
