"""Which formulation of an operation runs where. This table is the one place that decides.

An operation that it does not name runs by Keras's own: on an unknown platform, on a GPU or TPU where the framework's
compiler is good as it is, in a backend that is not known here. Every entry was measured against that (`benchmarks/`).
"""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import keras

from mobilenet_common.ops.formulations import keras_default

_BACKEND = keras.backend.backend()
native: Any
exported: Any
_FASTEST: dict[tuple[str, str], dict[str, Any]]

if _BACKEND == "jax":
    native = importlib.import_module("mobilenet_common.ops.formulations.jax_native")

    _CPU = {
        "dense": native.dense,
        "pointwise": native.pointwise,
        "depthwise": native.shifted_depthwise,
        "pointwise_normalize_batch": native.pointwise_normalize_batch,
    }
    _ACCELERATOR = {"dense": native.dense}
    _FASTEST = {
        ("cpu", "channels_last"): _CPU,
        ("cpu", "channels_first"): _CPU,
        ("gpu", "channels_last"): _ACCELERATOR,
        ("gpu", "channels_first"): _ACCELERATOR,
        ("tpu", "channels_last"): _ACCELERATOR,
        ("tpu", "channels_first"): _ACCELERATOR,
    }
elif _BACKEND == "tensorflow":
    native = importlib.import_module("mobilenet_common.ops.formulations.tensorflow_native")

    _KERNELS = {
        "dense": native.dense,
        "pointwise": native.dense,
        "depthwise": native.depthwise,
        "normalize": native.normalize,
        "normalize_batch": native.normalize_batch,
        "pointwise_normalize_batch": native.pointwise_normalize_batch,
    }
    _FASTEST = {
        ("accelerator kernels", "channels_last"): _KERNELS,
        ("cpu kernels", "channels_last"): _KERNELS
        | {"pointwise_normalize_batch": native.cpu_pointwise_normalize_batch},
        ("cpu compiled by XLA", "channels_last"): {
            "dense": native.dense,
            "pointwise": native.pointwise_product,
            "depthwise": native.shifted_depthwise,
            "pointwise_normalize_batch": native.compiled_pointwise_normalize_batch,
        },
        ("cpu compiled by XLA", "channels_first"): {"depthwise": native.shifted_depthwise},
    }
elif _BACKEND == "torch":
    native = importlib.import_module("mobilenet_common.ops.formulations.torch_native")

    _EVERYWHERE = {
        "dense": native.dense,
        "pointwise": native.pointwise,
        "depthwise": native.depthwise,
        "normalize": native.normalize,
        "normalize_batch": native.normalize_batch,
        "pointwise_normalize_batch": native.pointwise_normalize_batch,
        "attend": native.attend,
        "activate": native.activate,
    }
    _FASTEST = {("any", "channels_last"): _EVERYWHERE, ("any", "channels_first"): _EVERYWHERE}
else:
    native, _FASTEST = None, {}

_AT_ONCE = {"mean_over": keras_default.mean_at_once, "moments": keras_default.moments_at_once}
_EXPORTED = {}  # by what is written
if _BACKEND == "tensorflow":
    exported = importlib.import_module("mobilenet_common.ops.formulations.tensorflow_exported")

    _GRAPH = {
        "dense": exported.dense,
        "pointwise": exported.dense,
        "depthwise": exported.depthwise,
        "mean_over": keras_default.mean_at_once,  # but not the moments, which would lose two digits
    }
    _EXPORTED = {
        "litert": _GRAPH | {"activate": exported.activate},
        "litert of integers": _GRAPH | {"activate": exported.activate_integers},
        "saved_model": _GRAPH,
    }
elif _BACKEND == "torch":
    exported = importlib.import_module("mobilenet_common.ops.formulations.torch_exported")

    _GRAPH = {name: getattr(exported, name) for name in ("dense", "pointwise", "depthwise", "activate")} | _AT_ONCE
    _EXPORTED = {"onnx": _GRAPH | {"attend": exported.attend}, "torch": _GRAPH | {"attend": native.attend}}
    # What others trace, such as `keras.Model.export`, may become any file, and keeps its batch norm.
    _TRACED = _EXPORTED["onnx"] | {"normalize": exported.normalize}
    _FASTEST |= {("traced", "channels_last"): _TRACED, ("traced", "channels_first"): _TRACED}

_target = None
_shared: dict[str, Any] = {}


@contextlib.contextmanager
def traced_for(target: str) -> Iterator[None]:
    """Let operations take the form that `target`'s converter handles best, for a program traced in this scope.

    Args:
        target: `"litert"`, `"litert of integers"` or `"saved_model"` under TensorFlow, `"onnx"` or `"torch"` under
            PyTorch.
    """
    global _target
    _target, before = _EXPORTED[target], _target
    try:
        yield
    finally:
        _target = before


def is_traced_for_export() -> bool:
    """Return whether the program that is traced now leaves for another runtime."""
    return _target is not None or (native is not None and native.platform() == "traced")


@contextlib.contextmanager
def batch_shared(normalize_batch):
    """Let batch norm in training take its statistics over all devices that share a batch, in this scope.

    Inference never asks for them, and so is the same inside and out. JAX, which sees the whole batch, needs no scope.

    Args:
        normalize_batch: That of `shared_torch`, where every process enters the scope with a part of the batch, or of
            `shared_tensorflow`, in the scope of which a strategy runs its replicas.
    """
    global _shared

    def pointwise_normalize_batch(x, kernel, gamma, beta, epsilon, activation, data_format):
        y = fastest("pointwise", data_format)(x, kernel, None, 1, 1, "same", data_format)
        return normalize_batch(y, gamma, beta, epsilon, activation, data_format)

    before = _shared
    _shared = {"normalize_batch": normalize_batch, "pointwise_normalize_batch": pointwise_normalize_batch}
    try:
        yield
    finally:
        _shared = before


def fastest(operation: str, data_format: str) -> Any:
    """Return the function for `operation`, a name of `keras_default`, on the platform that is traced for."""
    if _target is not None:
        return _target.get(operation) or getattr(keras_default, operation)
    if operation in _shared:
        return _shared[operation]
    platform = native.platform() if native else ""
    return _FASTEST.get((platform, data_format), {}).get(operation) or getattr(keras_default, operation)
