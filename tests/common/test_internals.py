"""Private parts of other libraries behave as needed, and are used only in `mobilenet_common.internals`."""

import ast
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from mobilenet_common.internals import keras_internals
from tests.training.tiny import model as tiny_model

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "mobilenet_cli", "mobilenet_runtime", "mobilenet_zoo", *(f"mobilenet_v{n}" for n in "1234"))
DOCUMENTED = {"_asdict", "_replace", "_fields", "_exit"}  # public API: methods of named tuples, and os._exit


def build_nested_model():
    """Build a model with a nested model, a shared layer and a layer that wraps another layer."""
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="inner_dense")], name="inner")
    shared = keras.layers.Dense(4, name="shared")
    image = keras.Input((4,), name="image")
    once = shared(image)
    twice = shared(inner(once))
    wrapped = keras.layers.TimeDistributed(keras.layers.Dense(2, name="held"), name="wrapper")
    outputs = wrapped(keras.layers.Reshape((2, 2), name="rows")(twice))
    return keras.Model(image, outputs)


def test_inner_layers_lists_layers_at_any_depth():
    names = [layer.name for layer in keras_internals.inner_layers(build_nested_model())]
    assert {"inner", "inner_dense", "shared", "wrapper", "held"} <= set(names)
    assert len(names) == len(set(names))


def test_graph_calls_lists_calls_in_order_and_shared_layers_twice():
    calls = keras_internals.graph_calls(build_nested_model())
    assert [operation.name for operation, _, _ in calls] == ["shared", "inner", "shared", "rows", "wrapper"]
    assert all(len(inputs) == len(outputs) == 1 for _, inputs, outputs in calls)
    assert calls[1][1][0] is calls[0][2][0]


def test_producer_returns_the_layer_that_outputs_a_tensor():
    model = build_nested_model()
    assert keras_internals.producer(model.outputs[0]).name == "wrapper"


def test_run_graph_replaces_operations():
    model = build_nested_model()
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    unchanged = keras_internals.run_graph(model, keras.ops.convert_to_tensor(x), lambda operation: operation)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(unchanged), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    shapes = []

    def record_shapes(operation):
        def call(*args, **kwargs):
            shapes.append((operation.name, tuple(args[0].shape)))
            return operation(*args, **kwargs)

        return call

    keras_internals.run_graph(model, keras.ops.convert_to_tensor(x), record_shapes)
    assert shapes == [
        ("shared", (3, 4)),
        ("inner", (3, 4)),
        ("shared", (3, 4)),
        ("rows", (3, 4)),
        ("wrapper", (3, 2, 2)),
    ]


class RecordingLayer(keras.layers.Layer):
    """Records the results of `is_direct_call` and `surrounding_training` inside a call."""

    def call(self, x, training=None):
        self.is_direct = keras_internals.is_direct_call(self, x)
        self.training = keras_internals.surrounding_training()
        return x


def skip_unless(required, backend):
    if backend != required:
        pytest.skip(f"used only with {required}")


def test_direct_calls_are_disabled_if_keras_must_act_on_the_call(backend):
    skip_unless("torch", backend)
    assert keras_internals.HAS_DIRECT_CALLS
    layer, x = RecordingLayer(), keras.ops.ones((1, 2))
    layer(x)
    assert keras_internals.is_direct_call(layer, x)
    with keras.StatelessScope():
        assert not keras_internals.is_direct_call(layer, x)
    mixed = RecordingLayer(dtype="mixed_bfloat16")
    mixed(x)
    assert not mixed.is_direct  # inside the scope that casts variables
    with keras.RematScope(mode="full"):
        rematerialized = RecordingLayer()
    assert not keras_internals.is_direct_call(rematerialized, x)
    regularized = RecordingLayer(activity_regularizer="l2")
    assert not keras_internals.is_direct_call(regularized, x)
    layer.register_forward_hook(lambda *_: None)
    assert not keras_internals.is_direct_call(layer, x)
    hooked = RecordingLayer()
    hooked.register_forward_pre_hook(lambda *_: None)
    assert not keras_internals.is_direct_call(hooked, x)


def test_direct_calls_are_disabled_for_masked_tensors(backend):
    skip_unless("torch", backend)
    x = keras.layers.Masking()(keras.ops.ones((1, 3, 2)))
    assert not keras_internals.is_direct_call(RecordingLayer(), x)


@pytest.mark.parametrize("training", (True, False))
def test_surrounding_training_is_set_only_inside_a_call(training, backend):
    skip_unless("torch", backend)
    layer = RecordingLayer()
    layer(keras.ops.ones((1, 2)), training=training)
    assert layer.training is training
    assert keras_internals.surrounding_training() is None


def test_group_attributes_are_saved_and_loaded(tmp_path):
    class Recorded(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=())

        def save_own_variables(self, store):
            super().save_own_variables(store)
            keras_internals.group_attributes(store)["padding"] = "symmetric"

        def call(self, x):
            return self.scale * x

        def load_own_variables(self, store):
            super().load_own_variables(store)
            self.read = keras_internals.group_attributes(store)["padding"]

    image = keras.Input((2,))
    layer = Recorded(name="recorded")
    model = keras.Model(image, layer(image))
    model.save_weights(tmp_path / "model.weights.h5")
    model.load_weights(tmp_path / "model.weights.h5")
    assert layer.read == "symmetric"


def test_group_attributes_are_none_for_other_stores():
    assert keras_internals.group_attributes({}) is None


def test_build_symbolically_creates_optimizer_and_metric_variables():
    model = tiny_model()
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    before = model.get_weights()
    keras_internals.build_symbolically(model, (np.zeros((2, 32, 32, 3), "float32"), np.zeros((2, 3), "float32")))
    assert model.optimizer.built
    assert len(model.optimizer.variables) > 2 * len(model.trainable_variables)
    assert any("accuracy" in variable.path for variable in model.metrics_variables)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_build_before_fit_replaces_the_build_of_keras(backend):
    skip_unless("tensorflow", backend)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    calls = []
    keras_internals.build_before_fit(model, lambda: calls.append("built"))
    model.fit(np.ones((4, 2)), np.ones((4, 1)), batch_size=2, verbose=0)
    assert calls == ["built"]


def record_calls(calls):
    """Return a method wrapper that appends the positional arguments of every call to `calls`."""

    def wrap(method):
        def call(*arguments, **options):
            calls.append(arguments)
            return method(*arguments, **options)

        return call

    return wrap


def test_wrap_method_wraps_a_method_once():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    calls = []
    for _ in range(2):
        keras_internals.wrap_method(model.optimizer, "apply", record_calls(calls))
    model.optimizer.build(model.trainable_variables)
    model.optimizer.apply([keras.ops.ones(variable.shape) for variable in model.trainable_variables])
    assert len(calls) == 1


def test_wrap_epoch_results_wraps_the_logs():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    calls = []
    keras_internals.wrap_epoch_results(model, record_calls(calls))
    model.evaluate(np.ones((4, 2)), np.ones((4, 1)), batch_size=2, verbose=0)
    assert [sorted(logs) for (logs,) in calls] == [["loss"]]


def test_reduce_per_replica_is_patched_in_versions_that_need_it(backend):
    skip_unless("tensorflow", backend)
    from keras.src.backend.tensorflow import trainer

    original = trainer.reduce_per_replica
    try:
        keras_internals.patch_reduce_per_replica()
        patched = trainer.reduce_per_replica
        keras_internals.patch_reduce_per_replica()
        assert trainer.reduce_per_replica is patched
        needed = tuple(int(part) for part in keras.__version__.split(".")[:2]) <= (3, 15)
        assert (patched is not original) == needed or hasattr(original, "is_patched")
    finally:
        trainer.reduce_per_replica = original


class Hooked(keras_internals.OptimizerHooks, keras.optimizers.SGD):
    """Records which hooks run."""

    def build(self, variables):
        super().build(variables)
        self.steps = []

    def has_weight_decay(self, variable):
        return keras_internals.variable_index(self, variable) == 0

    def change_gradients(self, gradients, variables):
        self.steps.append("gradients")
        return [2 * gradient for gradient in gradients]

    def update_variables(self, update, gradients, variables, learning_rate):
        self.steps.append("variables")
        super().update_variables(update, gradients, variables, learning_rate)

    def update_averages(self, update, variables_and_averages):
        self.steps.append(f"{len(variables_and_averages)} averages")
        for variable, average in variables_and_averages:
            average.assign(variable)


class Unchanged(keras_internals.OptimizerHooks, keras.optimizers.SGD):
    """Overrides none of the hooks."""


def test_optimizer_without_overridden_hooks_matches_keras():
    options = {"learning_rate": 0.1, "weight_decay": 0.1, "momentum": 0.9, "use_ema": True, "ema_momentum": 0.5}
    results = []
    for kind in (keras.optimizers.SGD, Unchanged):
        variable, optimizer = keras.Variable(np.ones(3, "float32")), kind(**options)
        optimizer.build([variable])
        for _ in range(3):
            optimizer.apply([keras.ops.ones(3)])
        results.append([keras.ops.convert_to_numpy(item) for item in (variable, *optimizer.variables[2:])])
    for value, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_optimizer_hooks_run_in_order():
    variables = [keras.Variable(np.ones(2, "float32")), keras.Variable(np.ones(3, "float32"))]
    optimizer = Hooked(0.5, weight_decay=0.1, use_ema=True)
    optimizer.build(variables)
    optimizer.apply([keras.ops.ones(2), keras.ops.ones(3)])
    assert optimizer.steps == ["gradients", "variables", "2 averages"]
    decayed, undecayed = (keras.ops.convert_to_numpy(variable) for variable in variables)
    np.testing.assert_allclose(decayed, 1 - 0.1 * 0.5 - 0.5 * 2, atol=1e-6)
    np.testing.assert_allclose(undecayed, 1 - 0.5 * 2, atol=1e-6)
    for variable, average in keras_internals.moving_averages(optimizer):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(average), keras.ops.convert_to_numpy(variable))
    assert int(keras_internals.batches_seen(optimizer)) == 1


def test_batches_seen_counts_batches_with_gradient_accumulation():
    variable = keras.Variable(np.ones(2, "float32"))
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    optimizer.build([variable])
    for _ in range(3):
        optimizer.apply([keras.ops.ones(2)])
    assert int(keras_internals.batches_seen(optimizer)) == 3


def test_missing_step_raises_missing_internal(monkeypatch):
    monkeypatch.setattr(keras_internals.OptimizerHooks, "_STEPS", ("_gone",))
    with pytest.raises(keras_internals.MissingInternal, match=r"Keras [\d.]+\S* has no \w+\._gone"):

        class _Late(keras_internals.OptimizerHooks, keras.optimizers.SGD):
            pass


@pytest.mark.across
def test_torch_views_and_trees():
    import torch

    from mobilenet_common.internals import torch_internals

    tensor = torch.ones(2, 3)
    assert torch_internals.is_view(tensor.permute(1, 0))
    assert not torch_internals.is_view(tensor + 1)

    class Named(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 2)

        def forward(self, x):
            return {"outputs": self.linear(x), "inputs": x + 0}

    program = torch.export.export(Named(), (torch.ones(1, 3),))
    outputs = program.module()(torch.ones(1, 3))
    leaves = torch_internals.tree_leaves(outputs)
    assert [tuple(leaf.shape) for leaf in leaves] == [(1, 2), (1, 3)]
    names = torch_internals.tree_unflatten(["first", "second"], program.call_spec.out_spec)
    assert names == {"outputs": "first", "inputs": "second"}


@pytest.mark.across
def test_torch_exported_program_contains_assert_metadata():
    import torch

    from mobilenet_common.internals import torch_internals

    class Cast(torch.nn.Module):
        def forward(self, x):
            return x.to(torch.float32) + 1

    program = torch.export.export(Cast(), (torch.ones(2, dtype=torch.float16),))
    assert torch_internals.ASSERT_METADATA in {node.target for node in program.graph.nodes}


@pytest.mark.across
def test_tensorflow_detects_tracing_for_xla():
    import tensorflow as tf

    from mobilenet_common.internals import tensorflow_internals

    compiled = []

    def trace(x):
        compiled.append(tensorflow_internals.is_traced_for_xla())
        return x + 1

    tf.function(trace, jit_compile=True)(tf.ones(2))
    tf.function(trace)(tf.ones(2))
    trace(tf.ones(2))
    assert compiled == [True, False, False]


@pytest.mark.across
def test_tensorflow_variables_become_constants():
    import tensorflow as tf

    from mobilenet_common.internals import tensorflow_internals

    variable = tf.Variable([2.0, 3.0])
    concrete = tf.function(lambda x: x * variable).get_concrete_function(tf.TensorSpec((2,)))
    frozen = tensorflow_internals.freeze_variables(concrete)
    variable.assign([0.0, 0.0])
    np.testing.assert_array_equal(frozen(tf.ones(2))[0], [2.0, 3.0])


@pytest.mark.across
def test_litert_lists_the_operations_of_a_graph(tmp_path):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from mobilenet_common.internals import litert_internals

    function = tf.function(lambda x: tf.nn.relu(x) @ tf.ones((2, 3))).get_concrete_function(tf.TensorSpec((1, 2)))
    content = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    operations = litert_internals.graph_operations(interpreter)
    assert {"FULLY_CONNECTED"} <= {operation["op_name"] for operation in operations}
    assert all({"index", "op_name", "inputs", "outputs"} <= operation.keys() for operation in operations)


@pytest.mark.across
def test_private_names_are_used_only_in_internals():
    defined, uses, imports = set(), [], []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            is_internals = path.parent.name == "internals"
            for node in ast.walk(tree):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not is_internals:
                    defined.add(node.name)
                elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and not is_internals:
                    defined.add(node.attr)
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    defined.add(node.target.id)
                elif isinstance(node, ast.Assign):
                    defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
                if is_internals:
                    continue
                where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.Attribute) and re.match(r"_(?!_)", node.attr):
                    uses.append((where, node.attr))
                elif isinstance(node, ast.ImportFrom):
                    imports.append((where, node.module or ""))
                elif isinstance(node, ast.Import):
                    imports += [(where, alias.name) for alias in node.names]
    private = [f"{where}: {name}" for where, name in uses if name not in defined | DOCUMENTED]
    private += [
        f"{where}: {name}"
        for where, name in imports
        if re.search(r"\bkeras\.src\b|\btensorflow\.(python|compiler|core)\b|\._|\b_src\b", name)
    ]
    assert not private, "\n".join(private)


@pytest.mark.across
def test_private_keras_methods_are_overridden_only_in_internals():
    private_methods = {
        name
        for base in (keras.layers.Layer, keras.Model, keras.optimizers.Optimizer, keras.callbacks.Callback)
        for name in dir(base)
        if re.match(r"_(?!_)", name)
    }
    overrides = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.parent.name != "internals"
        for owner in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.FunctionDef) and node.name in private_methods
    ]
    assert not overrides, overrides
