"""Formulations for graphs exported by TensorFlow, in forms that converters recognize as operations of their runtime."""

import keras
import tensorflow as tf

from mobilenet_common.ops.formulations.tensorflow_native import dense, depthwise

__all__ = ["activate", "activate_integers", "dense", "depthwise"]


def activate(x, activation, overwrite):
    """Return `activation(x)`; LiteRT recognizes hard-swish only with a multiplication in place of the division."""
    return _FORMS.get(activation, activation)(x)


def activate_integers(x, activation, overwrite):
    """Return `activation(x)`, in a form that XNNPACK can run in 8-bit integers."""
    return _INTEGER_FORMS.get(activation, activation)(x)


def _hard_sigmoid(x):
    return tf.nn.relu6(x + 3.0) * (1 / 6)


def _integer_hard_sigmoid(x):
    return tf.nn.relu(1.0 - tf.nn.relu(0.5 - x * (1 / 6)))


_FORMS = {
    keras.activations.hard_sigmoid: _hard_sigmoid,
    keras.activations.hard_silu: lambda x: x * tf.nn.relu6(x + 3.0) * (1 / 6),
}
_INTEGER_FORMS = {
    keras.activations.hard_sigmoid: _integer_hard_sigmoid,
    keras.activations.hard_silu: lambda x: x * _integer_hard_sigmoid(x),
}
