"""The names in this library's own files, which Keras writes."""

import re

import keras

from mobilenet_common.checkpoints.layouts.base import Entry, Layout, any_matches

_OWN = re.compile(r"(stem|stage\d+_block\d+|head_conv|head_dense|classifier)/")


def _native_entries(model):
    """Return a layer's place and the number of the variable in it, which is how Keras's files keep them."""
    found, counts, seen = [], {}, set()
    for layer in _layers(model):
        for variable in layer.weights:
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            # The path itself begins with the model that was being built, which need not be one when it is loaded.
            owner = layer.name + variable.path.removeprefix(layer.path).rsplit("/", 1)[0]
            index = counts[owner] = counts.get(owner, -1) + 1
            found.append(Entry(variable, f"{owner}/{index}", "vector"))
    return found


def _split(tensors):
    """Return the layers of this library, and those that users put before or behind them."""
    own = {name: value for name, value in tensors.items() if _OWN.match(name)}
    return own, {name: value for name, value in tensors.items() if name not in own}


def _layers(model):
    """Yield the layers of a model, those of models within it in their place."""
    for layer in model.layers:
        if isinstance(layer, keras.Model) and getattr(layer, "outputs", None):
            yield from _layers(layer)
        else:
            yield layer


NATIVE = Layout(
    name="native",
    entries=_native_entries,
    recognizes=any_matches(r"(stem|stage\d+_block\d+)/"),
    head=re.compile(r"(head_conv|head_dense|classifier)/"),
    classifier=re.compile(r"classifier/1$"),
    split=_split,
)
