"""The words that architectures and layers choose from. They are here so that reading them does not import Keras."""

PADDINGS = ("same", "symmetric")
ANTIALIASING = ("average", "blur", None)
NORMALIZATIONS = ("batch", "group", "layer")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")  # of images before they go into a model

# Activations of the tables, which are known to be Keras's; any other name is checked by Keras.
ACTIVATIONS = ("relu", "relu6", "hard_swish", "silu", "gelu")
