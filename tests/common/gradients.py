"""First and second derivatives of functions of tensors, for every backend."""

import keras
import numpy as np
from keras import ops


def weighted_sum(y):
    """Return the sum of the elements of `y` with random weights."""
    weights = np.random.default_rng(7).standard_normal(tuple(y.shape)).astype("float32")
    return ops.sum(ops.cast(y, "float32") * ops.convert_to_tensor(weights))


def gradients(function, *arrays, compiled=False):
    """Return the gradients of `weighted_sum(function(*arrays))` with respect to the arrays, as float32 NumPy arrays.

    With `compiled`, TensorFlow compiles the function and its gradient with XLA.
    """
    return [ops.convert_to_numpy(ops.cast(g, "float32")) for g in _gradients(function, arrays, compiled)]


def second_gradients(function, *arrays, compiled=False):
    """Return gradients of the weighted sum of all `gradients` with respect to the arrays."""

    def weighted_gradients(*tensors):
        return sum(weighted_sum(g) for g in _raw_gradients(function, tensors))

    if keras.backend.backend() == "jax":
        import jax

        derivatives = jax.jit(jax.grad(weighted_gradients, tuple(range(len(arrays)))))(
            *map(ops.convert_to_tensor, arrays)
        )
    else:
        derivatives = _gradients(lambda *tensors: weighted_gradients(*tensors), arrays, compiled, reduce=False)
    return [ops.convert_to_numpy(g) for g in derivatives]


def _gradients(function, arrays, compiled, reduce=True):
    backend = keras.backend.backend()
    tensors = [ops.convert_to_tensor(array) for array in arrays]
    if backend == "torch":
        tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda *t: _raw_gradients(function, t, reduce), jit_compile=compiled)(*tensors)
    if backend == "jax":
        import jax

        return jax.jit(lambda *t: _raw_gradients(function, t, reduce))(*tensors)
    return _raw_gradients(function, tensors, reduce)


def _raw_gradients(function, tensors, reduce=True):
    objective = (lambda *t: weighted_sum(function(*t))) if reduce else function
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.grad(objective, tuple(range(len(tensors))))(*tensors)
    if backend == "torch":
        import torch

        return torch.autograd.grad(objective(*tensors), tensors, create_graph=True)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = objective(*tensors)
    return tape.gradient(y, tensors)
