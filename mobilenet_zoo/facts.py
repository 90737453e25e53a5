"""What belongs to a model beside its layers: how images are prepared for it, and what its classes are called."""

import keras

from mobilenet_common.facts import Facts, facts_of, remember
from mobilenet_common.nesting import last_layer

__all__ = ["Facts", "facts_of", "is_classifier", "remember"]


def is_classifier(model: keras.Model) -> bool:
    """Return whether a model classifies: it has a classifier, class names, or ends in softmax or sigmoid."""
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
