"""The tensor names in this library's own files, which Keras writes."""

import re

import keras

from mobilenet_common.checkpoints.layouts.base import Entry, Layout, any_matches

_NATIVE_NAMES = re.compile(r"(stem|stage\d+_block\d+|head_conv|head_dense|classifier)/")


def _native_entries(model):
    """Return the entries of a model, named by the path of the layer and the number of the variable in the layer.

    Keras's files use the same names.
    """
    entries, counts, seen = [], {}, set()
    for layer in _layers(model):
        for variable in layer.weights:
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            # The start of the variable's path depends on how the model was built, so replace it by the layer's name.
            owner = layer.name + variable.path.removeprefix(layer.path).rsplit("/", 1)[0]
            index = counts[owner] = counts.get(owner, -1) + 1
            entries.append(Entry(variable, f"{owner}/{index}", "vector"))
    return entries


def _split(tensors):
    """Return the tensors of this library's model and the tensors of layers that users added before or after it."""
    network = {name: value for name, value in tensors.items() if _NATIVE_NAMES.match(name)}
    return network, {name: value for name, value in tensors.items() if name not in network}


def _layers(model):
    """Yield the layers of a model, with nested functional models replaced by their layers."""
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
