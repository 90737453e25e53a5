"""Records of the padding and epsilon of a model in its `.weights.h5` file, written and read by its stem.

Keras lets layers store only variables, so the records are attributes of the HDF5 group that holds the stem's variables.
If a version of Keras has no such group, or the store is of another kind, nothing is recorded or compared.
"""

from mobilenet_common.internals.keras_internals import group_attributes
from mobilenet_common.notices import warn

_NAMES = ("padding", "norm_epsilon")


def save_conventions(layer, store):
    """Write the padding and epsilon of `layer` to the store in which its variables were saved."""
    attributes = group_attributes(store)
    if attributes is not None:
        for name in _NAMES:
            attributes[name] = getattr(layer, name)


def check_conventions(layer, store):
    """Warn if the weights in `store` were saved from a model whose padding or epsilon differs from that of `layer`."""
    attributes = group_attributes(store)
    if attributes is not None and set(_NAMES) <= attributes.keys():
        warn_if_different(layer, "The file", str(attributes["padding"]), float(attributes["norm_epsilon"]))


def warn_if_different(layer, source, padding, norm_epsilon):
    """Warn if the padding or epsilon of a stem `layer` differs from what the weights from `source` need."""
    has_other_epsilon = layer.normalization not in (None, "affine") and layer.norm_epsilon != norm_epsilon
    if layer.padding != padding or has_other_epsilon:
        warn(
            f"{source} was saved from a model with padding={padding!r} and norm_epsilon={norm_epsilon:g}, but this "
            f"model has padding={layer.padding!r} and norm_epsilon={layer.norm_epsilon:g}, so its outputs will "
            f"differ: build the model with padding={padding!r}, norm_epsilon={norm_epsilon:g}."
        )
