"""What this library needs of Keras and Keras has no public API for."""

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
    # Keras 3.5 to the latest. Where it is False, layers are called in the usual way.
    HAS_DIRECT_CALLS = hasattr(_variables, "get_autocast_scope")
except ImportError:
    HAS_DIRECT_CALLS = False


class MissingInternal(MobileNetError, RuntimeError):
    """The installed version of a library lacks something this library builds on; the message names both."""


def _require(owner, *names):
    for name in names:
        if not hasattr(owner, name):
            raise MissingInternal(
                f"Keras {keras.__version__} has no {owner.__name__}.{name}, which mobilenet-zoo builds on: "
                "install a version of Keras that the documentation lists as tested."
            )


# Layers and graphs


def inner_layers(layer):
    """Return every layer inside `layer`, at any depth, once each.

    Stands in for a public way into a layer that is not a model. Keras 3.0 to the latest; required.
    """
    return list(dict.fromkeys(layer._flatten_layers(include_self=False)))


def graph_calls(model):
    """Return `(operation, inputs, outputs)` of every call in a functional model's graph, in the order of running.

    Stands in for a public view of a functional model's nodes. Keras 3.0 to the latest; required.
    """
    depths = sorted(model._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input]
    return [(node.operation, node.arguments.keras_tensors, node.outputs) for node in nodes]


def producer(tensor):
    """Return the operation whose output the symbolic `tensor` is.

    Stands in for a public link from a `KerasTensor` to its operation. Keras 3.0 to the latest; required.
    """
    return tensor._keras_history.operation


def run_graph(model, inputs, replace):
    """Run a functional model on `inputs` with `replace(operation)` in place of each operation.

    Stands in for `keras.models.clone_model`, which takes symbolic tensors only. Keras 3.0 to the latest; required.
    """
    return model._run_through_graph(inputs, operation_fn=replace)


def is_direct_call(layer: keras.layers.Layer, x: Tensor) -> bool:
    """Return whether calling `layer` on `x` would do nothing in Keras beyond `layer.call(x)`.

    Stands in for a cheap `Layer.__call__`: under PyTorch Keras's takes as long as a small convolution. Use it only
    where `HAS_DIRECT_CALLS` and under PyTorch; an attribute that a version of Keras lacks counts as unset.
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
    """Return the `training` argument of the call that this code runs in, or None; only where `HAS_DIRECT_CALLS`."""
    context = _global_state.get_global_attribute("current_call_ctx")
    return context.get_value("training") if context else None


# Saving


def group_attributes(store):
    """Return the attributes of the HDF5 group that a layer's variables are saved in, or None.

    Stands in for a place in `.weights.h5` files for facts about a layer. Keras 3.0 to the latest; None where a version
    has no such group or the store is of another kind.
    """
    return getattr(getattr(store, "_h5_entry_group", None), "attrs", None)


# Training


def build_symbolically(model: keras.Model, batch: tuple) -> None:
    """Make the variables of a compiled model's metrics and optimizer, as `fit` does under JAX and PyTorch.

    Stands in for a public "build for training". Keras 3.0 to the latest; required.

    Args:
        model: A compiled model.
        batch: `(inputs, targets)` or `(inputs, targets, weights)` of arrays.
    """
    model._symbolic_build(data_batch=batch)


def build_before_fit(model: keras.Model, build: Callable) -> None:
    """Let `build()` replace what `fit` under TensorFlow does to a model that has not run.

    Keras's own takes a batch from the data for it. Keras 3.5 to the latest; where it is missing, `fit` doesn't build.
    """
    model._maybe_symbolic_build = lambda **_: build()


def wrap_method(owner: Any, name: str, wrap: Callable) -> None:
    """Replace the method `name` of one object by `wrap(method)`, once; a second time does nothing.

    Stands in for hooks around `Optimizer.apply` and `Model.make_train_function`, which are public methods but can't be
    changed from outside of a subclass.
    """
    if name not in vars(owner):
        setattr(owner, name, wrap(getattr(owner, name)))


def wrap_epoch_results(model: keras.Model, wrap: Callable) -> None:
    """Wrap what turns a model's metrics into the logs of an epoch or an evaluation, once.

    Stands in for a public hook between the last batch and the logs. Keras 3.5 to the latest; required.
    """
    _require(type(model), "_get_metrics_result_or_logs")
    wrap_method(model, "_get_metrics_result_or_logs", wrap)


_PATCHED = "is_patched"


def patch_reduce_per_replica() -> None:
    """Let `fit` run under TensorFlow's MultiWorkerMirroredStrategy.

    Keras 3.12 to 3.15 reduces scalars along an axis there, which fails; other versions are left alone.
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
    """Return the position of a model's variable among those that `optimizer` was built with.

    Stands in for a public lookup. TensorFlow hands `update_step` a variable of its own, so identity doesn't do. Keras
    3.0 to the latest; required.
    """
    return optimizer._get_variable_index(variable)


def batches_seen(optimizer):
    """Return the optimizer's counter of batches.

    Stands in for `Optimizer.iterations`, which counts steps where gradients are accumulated. Keras 3.3 to the latest;
    required.
    """
    return optimizer._iterations


def moving_averages(optimizer):
    """Return `[(variable, its moving average)]` of an optimizer with `use_ema=True`.

    Stands in for a public view of the averages. Keras 3.0 to the latest; required.
    """
    return list(zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True))


if TYPE_CHECKING:
    _Base: Any = keras.optimizers.Optimizer  # the class that follows among the bases
else:
    _Base = object


class OptimizerHooks(_Base):
    """Methods with public names for the steps inside `Optimizer.apply`, for a subclass to override.

    List it before one of Keras's optimizers among the bases. It stands in for public hooks; Keras 3.0 to the latest.
    Where a version has no such step, a class that derives from it can't be defined.
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
        """Return the gradients to use in place of `gradients`, before they are clipped or accumulated."""
        return gradients

    def update_variables(self, update: Callable, gradients: Any, variables: Any, learning_rate: float) -> None:
        """Call `update(gradients, variables, learning_rate)` for all variables, in as many groups as needed."""
        update(gradients, variables, learning_rate)

    def update_averages(self, update, variables_and_averages):
        """Move the averages toward the weights after a batch: by `update()`, Keras's own rule, or another."""
        update()

    # Keras's own names from here on.

    def _use_weight_decay(self, variable):
        return self.has_weight_decay(variable)

    def _apply_weight_decay(self, variables):
        decaying = [variable for variable in variables if self.has_weight_decay(variable)]
        if self.weight_decay and decaying:  # PyTorch's function rejects an empty list.
            super()._apply_weight_decay(decaying)

    def _backend_apply_gradients(self, grads, trainable_variables):
        if keras.backend.backend() == "tensorflow":
            # Sum over replicas first: Keras would clip each replica's gradients and sum afterwards.
            pairs = super()._all_reduce_sum_gradients(list(zip(grads, trainable_variables, strict=True)))
            grads = [gradient for gradient, _ in pairs]
        super()._backend_apply_gradients(self.change_gradients(grads, trainable_variables), trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars  # `_backend_apply_gradients` has summed them.

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        self.update_variables(super()._backend_update_step, grads, trainable_variables, learning_rate)

    def _update_model_variables_moving_average(self, trainable_variables):
        if self.use_ema:
            update = functools.partial(super()._update_model_variables_moving_average, trainable_variables)
            averages = self._model_variables_moving_average
            self.update_averages(update, list(zip(trainable_variables, averages, strict=True)))
