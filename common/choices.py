"""Allowed values of the options of architectures and layers, in a module that doesn't import Keras."""

PADDINGS = ("same", "symmetric")
ANTIALIASING = ("average", "blur", None)
NORMALIZATIONS = ("batch", "group", "layer")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")  # for preprocessing images

# Activations of the published architectures. Keras must not be imported to check these; it checks any other name.
ACTIVATIONS = ("relu", "relu6", "hard_swish", "silu", "gelu")
