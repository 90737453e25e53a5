"""The names in this library's own files, which Keras writes."""

import re

from mobilenet_common.checkpoints.layouts.base import Entry, Layout, any_matches


def _native_entries(model):
    """A layer's path and the number of the variable in it, which is how Keras's files keep them."""
    found, counts = [], {}
    for layer in model.layers:
        for variable in layer.weights:
            owner = variable.path.rsplit("/", 1)[0]
            index = counts[owner] = counts.get(owner, -1) + 1
            found.append(Entry(variable, f"{owner}/{index}", "vector"))
    return found


def _split(tensors):
    """The layers of this library, and those that users put before or behind them."""
    own = {name: value for name, value in tensors.items() if _OWN.match(name)}
    return own, {name: value for name, value in tensors.items() if name not in own}


_OWN = re.compile(r"(stem|stage\d+_block\d+|head_conv|head_dense|classifier)/")

NATIVE = Layout(
    name="native",
    entries=_native_entries,
    recognises=any_matches(r"(stem|stage\d+_block\d+)/"),
    head=re.compile(r"(head_conv|head_dense|classifier)/"),
    classifier=re.compile(r"classifier/1$"),
    split=_split,
)
