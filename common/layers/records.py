"""What a stem records in a `.weights.h5` file beside its variables: how the model pads and normalizes.

Keras gives a layer no place for it, so it becomes attributes of the group that Keras makes for the layer's variables.
Where a version of Keras has no such group, or another kind of store, nothing is recorded and nothing is compared.
"""

from mobilenet_common.internals.keras_internals import group_attributes
from mobilenet_common.notices import warn

_NAMES = ("padding", "norm_epsilon")


def record(layer, store):
    """Write the conventions of `layer` into the store that its variables were saved in."""
    attributes = group_attributes(store)
    if attributes is not None:
        for name in _NAMES:
            attributes[name] = getattr(layer, name)


def warn_of_difference(layer, store):
    """Warn if the weights in `store` were saved from a model with other conventions than those of `layer`."""
    attributes = group_attributes(store)
    if attributes is not None and set(_NAMES) <= attributes.keys():
        warn_if_different(layer, "The file", str(attributes["padding"]), float(attributes["norm_epsilon"]))


def warn_if_different(layer, source, padding, norm_epsilon):
    """Warn if a model whose stem is `layer` pads or normalizes in another way than the weights of `source` need."""
    is_other_epsilon = layer.normalization not in (None, "affine") and layer.norm_epsilon != norm_epsilon
    if layer.padding != padding or is_other_epsilon:
        warn(
            f"{source} was saved from a model with padding={padding!r} and norm_epsilon={norm_epsilon:g}, but this "
            f"model has {layer.padding!r} and {layer.norm_epsilon:g}, so its outputs differ: build it with "
            f"padding={padding!r}, norm_epsilon={norm_epsilon:g}."
        )
