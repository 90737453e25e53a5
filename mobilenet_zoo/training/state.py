"""The complete state of a run between two steps, as named arrays from which another process can resume."""

import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from mobilenet_common.errors import CheckpointError
from mobilenet_common.internals.keras_internals import build_symbolically

GROUPS = ("model", "seeds", "metrics", "optimizer", "random")
_SHOWN = 5


class StateError(CheckpointError):
    """Raised when a saved state doesn't match the model and its optimizer, which are left unchanged."""


def variables_of(model):
    """Return `{name: variable}` of a model's weights, seeds, metrics and optimizer.

    The optimizer's variables include the step counter and the moving averages.

    Args:
        model: A compiled `keras.Model` whose optimizer is built.
    """
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # During JAX's `fit`, the variables are out of date.
    weights = {id(weight) for weight in model.weights}
    optimizer = getattr(model, "optimizer", None)
    # Name seeds and metrics by position, and optimizer variables without the optimizer's name: Keras numbers those
    # names depending on what the process has created before.
    seeds = [variable for variable in model.non_trainable_variables if id(variable) not in weights]
    optimizer_variables = optimizer.variables if optimizer else ()
    named = {}
    for name, variable in (
        *((f"model/{weight.path}", weight) for weight in model.weights),
        *((f"seeds/{i}", seed) for i, seed in enumerate(seeds)),
        *((f"metrics/{i}_{variable.name}", variable) for i, variable in enumerate(model.metrics_variables)),
        *((f"optimizer/{variable.path.partition('/')[2]}", variable) for variable in optimizer_variables),
    ):
        duplicates = sum(1 for other in named if other.partition("#")[0] == name) if name in named else 0
        named[f"{name}#{duplicates + 1}" if duplicates else name] = variable
    return named


def make_variables(model, classes, is_weighted):
    """Create the variables of the optimizer and the metrics, which TensorFlow's `fit` creates only in its first step.

    Args:
        model: A compiled `keras.Model` with one input.
        classes: Number of classes of the targets.
        is_weighted: Whether batches contain sample weights.
    """
    shape = getattr(model, "student", model).input_shape[1:]
    batch = (np.zeros((2, *shape), "float32"), np.zeros((2, classes), "float32"), np.zeros(2, "float32"))
    build_symbolically(model, batch if is_weighted else batch[:2])


def capture(model: keras.Model) -> dict[str, np.ndarray]:
    """Return `{name: array}`: copies of all variables of the model, and the states of this process's random generators.

    Args:
        model: A compiled `keras.Model` whose optimizer is built.
    """
    arrays = {name: numpy_of(variable) for name, variable in variables_of(model).items()}
    return arrays | random_state()


def numpy_of(variable):
    """Return a NumPy copy of a variable's value, even if the variable is replicated on several devices."""
    return np.array(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(variable)))


def restore(model: keras.Model, arrays: Mapping[str, np.ndarray], groups: Sequence[str] = GROUPS) -> None:
    """Restore what `capture` returned, either completely or not at all.

    Args:
        model: A compiled `keras.Model` whose optimizer is built.
        arrays: `{name: array}`, as `capture` returns them.
        groups: Groups to restore, some of "model", "seeds", "metrics", "optimizer" and "random". The other groups are
            left unchanged.

    Raises:
        StateError: The names or shapes differ from those of the model and its optimizer.
    """
    variables = {name: variable for name, variable in variables_of(model).items() if name.partition("/")[0] in groups}
    arrays = {name: array for name, array in arrays.items() if name.partition("/")[0] in groups}
    generators = {name for name in arrays if name.startswith("random/")}
    missing = sorted(variables.keys() - arrays.keys())
    left_over = sorted(arrays.keys() - variables.keys() - generators)
    misshapen = {
        name: (tuple(arrays[name].shape), tuple(variable.shape))
        for name, variable in variables.items()
        if name in arrays and tuple(arrays[name].shape) != tuple(variable.shape)
    }
    if missing or left_over or misshapen:
        raise StateError(
            _difference(missing, left_over, misshapen), missing=missing, left_over=left_over, misshapen=misshapen
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
    if generators:
        restore_random_state(arrays)


def not_finite(arrays):
    """Return the names of the arrays that contain NaN or infinity."""
    return [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]


def _difference(missing, left_over, misshapen):
    parts = []
    for verb, names in (("lacks", missing), ("has the unknown arrays", left_over)):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            parts.append(f"It {verb} {', '.join(names[:_SHOWN])}{more}.")
    for name, (actual, expected) in list(misshapen.items())[:_SHOWN]:
        parts.append(f"{name} has shape {actual} in the checkpoint, but {expected} in the model.")
    return "The checkpoint belongs to another model or optimizer. " + " ".join(parts)


def random_state():
    """Return `{name: array}`: the states of the random generators of Python, NumPy and PyTorch.

    PyTorch's own layers draw from its global generator. The seeds of Keras's layers are variables, and not included.
    """
    _, internal_state, gauss = random.getstate()
    _, key, position, has_gauss, cached = np.random.get_state()
    state = {
        "random/python": np.array(internal_state, "uint64"),
        "random/python_gauss": np.array([gauss is not None, gauss or 0.0], "float64"),
        "random/numpy": np.array(key, "uint32"),
        "random/numpy_position": np.array([position, has_gauss, cached], "float64"),
    }
    if (torch := sys.modules.get("torch")) is not None and keras.backend.backend() == "torch":
        state["random/torch"] = torch.get_rng_state().numpy().copy()
        for i, generator in enumerate(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []):
            state[f"random/torch_cuda{i}"] = generator.numpy().copy()
    return state


def restore_random_state(state: Any) -> None:
    """Restore the generators from what `random_state` returned; other arrays in `state` are ignored."""
    has_gauss, gauss = state["random/python_gauss"]
    random.setstate((3, tuple(int(word) for word in state["random/python"]), float(gauss) if has_gauss else None))
    position, has_gauss, cached = state["random/numpy_position"]
    np.random.set_state(("MT19937", state["random/numpy"], int(position), int(has_gauss), float(cached)))
    if "random/torch" in state and keras.backend.backend() == "torch":
        import torch

        torch.set_rng_state(torch.from_numpy(np.array(state["random/torch"])))
        if torch.cuda.is_available():
            for i in range(torch.cuda.device_count()):
                if f"random/torch_cuda{i}" in state:
                    torch.cuda.set_rng_state(torch.from_numpy(np.array(state[f"random/torch_cuda{i}"])), i)
