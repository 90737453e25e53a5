"""TensorFlow, for a graph that leaves: spelled so that a converter finds its runtime's own operations in it."""

import keras
import tensorflow as tf

from mobilenet_common.ops.formulations.tensorflow_native import dense, depthwise

__all__ = ["activate", "activate_integers", "dense", "depthwise"]


def activate(x, activation, overwrite):
    """Return `activation(x)`; LiteRT knows hard-swish only by this form, with a product in place of a quotient."""
    return _SPELLINGS.get(activation, activation)(x)


def activate_integers(x, activation, overwrite):
    """Return `activation(x)` in a form that XNNPACK runs in 8-bit integers."""
    return _INTEGER_SPELLINGS.get(activation, activation)(x)


def _hard_sigmoid(x):
    return tf.nn.relu6(x + 3.0) * (1 / 6)


def _integer_hard_sigmoid(x):
    return tf.nn.relu(1.0 - tf.nn.relu(0.5 - x * (1 / 6)))


_SPELLINGS = {
    keras.activations.hard_sigmoid: _hard_sigmoid,
    keras.activations.hard_silu: lambda x: x * tf.nn.relu6(x + 3.0) * (1 / 6),
}
_INTEGER_SPELLINGS = {
    keras.activations.hard_sigmoid: _integer_hard_sigmoid,
    keras.activations.hard_silu: lambda x: x * _integer_hard_sigmoid(x),
}
