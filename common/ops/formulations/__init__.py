"""Table of the fastest formulation of each operation, by backend, platform and data format.

An operation without an entry uses the formulation of `keras_default`. This applies to unknown backends and platforms,
and to GPUs and TPUs wherever the framework's compiler is already fast. Every entry was measured against `keras_default`
(see `benchmarks/`).
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

    _NATIVE = {
        "dense": native.dense,
        "pointwise": native.pointwise,
        "depthwise": native.depthwise,
        "normalize": native.normalize,
        "normalize_batch": native.normalize_batch,
        "pointwise_normalize_batch": native.pointwise_normalize_batch,
        "attend": native.attend,
        "activate": native.activate,
    }
    _FASTEST = {("any", "channels_last"): _NATIVE, ("any", "channels_first"): _NATIVE}
else:
    native, _FASTEST = None, {}

_SINGLE_OPERATION = {"mean_over": keras_default.single_mean, "moments": keras_default.single_moments}
_EXPORTED = {}  # {target of `traced_for`: {operation: function}}
if _BACKEND == "tensorflow":
    exported = importlib.import_module("mobilenet_common.ops.formulations.tensorflow_exported")

    _GRAPH = {
        "dense": exported.dense,
        "pointwise": exported.dense,
        "depthwise": exported.depthwise,
        "mean_over": keras_default.single_mean,  # `single_moments` would lose two digits in TensorFlow.
    }
    _EXPORTED = {
        "litert": _GRAPH | {"activate": exported.activate},
        "litert_int8": _GRAPH | {"activate": exported.activate_integers},
        "saved_model": _GRAPH,
    }
elif _BACKEND == "torch":
    exported = importlib.import_module("mobilenet_common.ops.formulations.torch_exported")

    _GRAPH = {
        name: getattr(exported, name) for name in ("dense", "pointwise", "depthwise", "activate")
    } | _SINGLE_OPERATION
    _EXPORTED = {"onnx": _GRAPH | {"attend": exported.attend}, "torch": _GRAPH | {"attend": native.attend}}
    # Other code, such as `keras.Model.export`, can trace for any format, and doesn't fuse the batch norm first.
    _TRACED = _EXPORTED["onnx"] | {"normalize": exported.normalize}
    _FASTEST |= {("traced", "channels_last"): _TRACED, ("traced", "channels_first"): _TRACED}

_target = None
_shared: dict[str, Any] = {}


@contextlib.contextmanager
def traced_for(target: str) -> Iterator[None]:
    """Use the formulations that the converter of `target` handles best, for a program that is traced in this scope.

    Args:
        target: Format to export to: `"litert"`, `"litert_int8"` (8-bit LiteRT) or `"saved_model"` under
            TensorFlow, `"onnx"` or `"torch"` under PyTorch.
    """
    global _target
    _target, before = _EXPORTED[target], _target
    try:
        yield
    finally:
        _target = before


def is_traced_for_export() -> bool:
    """Return whether the program that is being traced will be exported to another runtime."""
    return _target is not None or (native is not None and native.platform() == "traced")


@contextlib.contextmanager
def batch_shared(normalize_batch):
    """Compute the batch statistics of batch norm over all devices that share a batch, for training in this scope.

    Inference doesn't use batch statistics and is the same inside the scope. JAX needs no such scope, because its
    program sees the whole batch.

    Args:
        normalize_batch: The function of `shared_torch` if every process enters the scope with its part of the batch,
            or the function of `shared_tensorflow` if a `tf.distribute.Strategy` runs its replicas inside the scope.
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
    """Return the fastest function for `operation`, a function name of `keras_default`, on the current platform."""
    if _target is not None:
        return _target.get(operation) or getattr(keras_default, operation)
    if operation in _shared:
        return _shared[operation]
    platform = native.platform() if native else ""
    return _FASTEST.get((platform, data_format), {}).get(operation) or getattr(keras_default, operation)
