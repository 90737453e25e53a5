"""Models within models, and layers within layers: the one place that walks them."""


def all_layers(layer):
    """Return every layer inside a model or a layer, at any depth, once each, in the order in which they were added.

    Args:
        layer: A `keras.Model` or layer, which is not among the results.
    """
    # Keras has no public way into a layer that is not a model.
    return list(dict.fromkeys(layer._flatten_layers(include_self=False)))
