"""Parts of Keras that this library needs and that have no public API."""

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from mobilenet_common.errors import MobileNetError
from mobilenet_common.types import Tensor

try:
    _variables: Any = importlib.import_module("keras.src.backend.common.variables")
    _global_state: Any = importlib.import_module("keras.src.backend.common.global_state")
    _stateless_scope: Any = importlib.import_module("keras.src.backend.common.stateless_scope")
    # True for Keras 3.5 to the latest. If it is False, layers are called through Keras's `__call__`.
    HAS_DIRECT_CALLS = hasattr(_variables, "get_autocast_scope")
except ImportError:
    HAS_DIRECT_CALLS = False


class MissingInternal(MobileNetError, RuntimeError):
    """Raised if the installed Keras lacks a private function or method that this library needs."""


def _require(owner, *names):
    for name in names:
        if not hasattr(owner, name):
            raise MissingInternal(
                f"Keras {keras.__version__} has no {owner.__name__}.{name}, which mobilenet-zoo needs: "
                "install a Keras version that the documentation lists as tested."
            )


# Layers and graphs


def inner_layers(layer):
    """Return all layers inside `layer`, at any depth, without duplicates.

    Missing public API: the sublayers of a layer that isn't a model. Keras 3.0 to the latest; required.
    """
    return list(dict.fromkeys(layer._flatten_layers(include_self=False)))


def graph_calls(model):
    """Return `(operation, inputs, outputs)` for every call in a functional model's graph, in execution order.

    Missing public API: the nodes of a functional model. Keras 3.0 to the latest; required.
    """
    depths = sorted(model._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input]
    return [(node.operation, node.arguments.keras_tensors, node.outputs) for node in nodes]


def producer(tensor):
    """Return the operation that outputs the symbolic `tensor`.

    Missing public API: the operation of a `KerasTensor`. Keras 3.0 to the latest; required.
    """
    return tensor._keras_history.operation


def run_graph(model, inputs, replace):
    """Run a functional model on `inputs` with `replace(operation)` in place of each operation.

    Missing public API: `keras.models.clone_model` does this only for symbolic tensors. Keras 3.0 to the latest;
    required.
    """
    return model._run_through_graph(inputs, operation_fn=replace)


def is_direct_call(layer: keras.layers.Layer, x: Tensor) -> bool:
    """Return whether Keras's `layer(x)` would do nothing but `layer.call(x)`.

    Missing public API: a fast `Layer.__call__`. Under PyTorch, Keras's `__call__` takes as long as a small convolution.
    Use this function only under PyTorch and if `HAS_DIRECT_CALLS`. Attributes that the Keras version lacks count as
    unset.
    """
    return (
        _variables.get_autocast_scope() is None
        and not _stateless_scope.in_stateless_scope()
        and layer.activity_regularizer is None
        and getattr(layer, "_remat_mode", None) is None
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
        and getattr(x, "_keras_mask", None) is None
    )


def surrounding_training():
    """Return the `training` argument of the Keras call that is running, or None.

    Missing public API: the context of a call. Use this function only if `HAS_DIRECT_CALLS`.
    """
    context = _global_state.get_global_attribute("current_call_ctx")
    return context.get_value("training") if context else None


# Saving


def group_attributes(store):
    """Return the attributes of the HDF5 group in which a layer's variables are saved, or None.

    Missing public API: metadata of a layer in `.weights.h5` files. Keras 3.0 to the latest. Returns None if the version
    has no such group, or if the store is of another kind.
    """
    return getattr(getattr(store, "_h5_entry_group", None), "attrs", None)


# Training


def build_symbolically(model: keras.Model, batch: tuple) -> None:
    """Create the variables of a compiled model's metrics and optimizer, as `fit` does under JAX and PyTorch.

    Missing public API: building a model for training. Keras 3.0 to the latest; required.

    Args:
        model: A compiled model.
        batch: Arrays, as `(inputs, targets)` or `(inputs, targets, weights)`.
    """
    model._symbolic_build(data_batch=batch)


def build_before_fit(model: keras.Model, build: Callable) -> None:
    """Make `fit` under TensorFlow call `build()` for a model that hasn't run yet.

    Keras would take a batch from the data to build the model. Missing public API: a hook for this. Keras 3.5 to the
    latest; `fit` of versions that lack it doesn't build the model.
    """
    model._maybe_symbolic_build = lambda **_: build()


def wrap_method(owner: Any, name: str, wrap: Callable) -> None:
    """Replace the method `name` of a single object with `wrap(method)`; repeated calls do nothing.

    Missing public API: hooks around `Optimizer.apply` and `Model.make_train_function`, which are public methods, but
    which only a subclass can change.
    """
    if name not in vars(owner):
        setattr(owner, name, wrap(getattr(owner, name)))


def wrap_epoch_results(model: keras.Model, wrap: Callable) -> None:
    """Wrap the method that turns a model's metrics into the logs of an epoch or an evaluation.

    Repeated calls do nothing. Missing public API: a hook between the last batch and the logs. Keras 3.5 to the latest;
    required.
    """
    _require(type(model), "_get_metrics_result_or_logs")
    wrap_method(model, "_get_metrics_result_or_logs", wrap)


_PATCHED = "is_patched"


def patch_reduce_per_replica() -> None:
    """Patch Keras so that `fit` runs under TensorFlow's MultiWorkerMirroredStrategy.

    With this strategy, Keras 3.12 to 3.15 reduces scalars along an axis, which fails. Other versions aren't patched.
    """
    if not (3, 12) <= tuple(int(part) for part in keras.__version__.split(".")[:2]) <= (3, 15):
        return
    import tensorflow as tf
    from keras.src.backend.tensorflow import trainer

    if hasattr(trainer.reduce_per_replica, _PATCHED):
        return
    reduce_per_replica = trainer.reduce_per_replica

    def patched(values, strategy, reduction):
        over_hosts = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        if not over_hosts or reduction not in ("auto", "mean"):
            return reduce_per_replica(values, strategy, reduction)
        return keras.tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)

    setattr(patched, _PATCHED, True)
    trainer.reduce_per_replica = patched


# Optimizers


def variable_index(optimizer, variable):
    """Return the index of a model's variable among the variables that `optimizer` was built with.

    Missing public API: a lookup of this index. TensorFlow passes another variable object to `update_step`, so comparing
    identities doesn't work. Keras 3.0 to the latest; required.
    """
    return optimizer._get_variable_index(variable)


def batches_seen(optimizer):
    """Return the variable in which the optimizer counts batches.

    Missing public API: a counter of batches. `Optimizer.iterations` counts steps if gradients are accumulated. Keras
    3.3 to the latest; required.
    """
    return optimizer._iterations


def moving_averages(optimizer):
    """Return a list of `(variable, moving average)` for an optimizer with `use_ema=True`.

    Missing public API: the moving averages. Keras 3.0 to the latest; required.
    """
    return list(zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True))


if TYPE_CHECKING:
    _Base: Any = keras.optimizers.Optimizer  # OptimizerHooks precedes a Keras optimizer among the bases.
else:
    _Base = object


class OptimizerHooks(_Base):
    """Mixin with public methods for the steps inside `Optimizer.apply`, for subclasses to override.

    List it before one of Keras's optimizers among the base classes. Missing public API: hooks for these steps. Keras
    3.0 to the latest; if a version lacks one of the steps, defining a subclass raises `MissingInternal`.
    """

    _STEPS = (
        "_use_weight_decay",
        "_apply_weight_decay",
        "_backend_apply_gradients",
        "_backend_update_step",
        "_update_model_variables_moving_average",
        "_get_variable_index",
    )

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        _require(keras.optimizers.Optimizer, *OptimizerHooks._STEPS)

    def has_weight_decay(self, variable: Any) -> bool:
        """Return whether weight decay applies to `variable`."""
        return super()._use_weight_decay(variable)

    def change_gradients(self, gradients, variables):
        """Return the gradients to use instead of `gradients`, before clipping and accumulation."""
        return gradients

    def update_variables(self, update: Callable, gradients: Any, variables: Any, learning_rate: float) -> None:
        """Call `update(gradients, variables, learning_rate)` once for all variables, or once per group of variables."""
        update(gradients, variables, learning_rate)

    def update_averages(self, update, variables_and_averages):
        """Update the moving averages after a batch. `update()` applies Keras's rule; subclasses can apply another."""
        update()

    # The methods below override Keras's private methods.

    def _use_weight_decay(self, variable):
        return self.has_weight_decay(variable)

    def _apply_weight_decay(self, variables):
        decaying = [variable for variable in variables if self.has_weight_decay(variable)]
        if self.weight_decay and decaying:  # PyTorch's function rejects an empty list.
            super()._apply_weight_decay(decaying)

    def _backend_apply_gradients(self, grads, trainable_variables):
        if keras.backend.backend() == "tensorflow":
            # Sum over replicas first, because Keras would clip each replica's gradients before the sum.
            pairs = super()._all_reduce_sum_gradients(list(zip(grads, trainable_variables, strict=True)))
            grads = [gradient for gradient, _ in pairs]
        super()._backend_apply_gradients(self.change_gradients(grads, trainable_variables), trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars  # `_backend_apply_gradients` has already summed them.

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        self.update_variables(super()._backend_update_step, grads, trainable_variables, learning_rate)

    def _update_model_variables_moving_average(self, trainable_variables):
        if self.use_ema:
            update = functools.partial(super()._update_model_variables_moving_average, trainable_variables)
            averages = self._model_variables_moving_average
            self.update_averages(update, list(zip(trainable_variables, averages, strict=True)))
