"""Every formulation of `common/ops` against Keras's own operation: values, gradients, types, odd and tiny sizes."""

import itertools
import json
import operator
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from mobilenet_common import ops as our_ops
from mobilenet_common.ops import formulations
from mobilenet_common.ops.formulations import keras_default, shifted
from tests.common.gradients import gradients, second_gradients

ROOT = Path(__file__).resolve().parents[2]
BACKEND = keras.backend.backend()
NEUTRAL = pytest.mark.neutral  # cases that reach each backend by the same way as the others
XLA = [False, True] if BACKEND == "tensorflow" else [False]
TOLERANCES = {"float32": 2e-5, "bfloat16": 3e-2}

geometries = st.fixed_dictionaries(
    {
        "kernel_size": st.sampled_from([1, 3, 5, 7]),
        "height": st.integers(1, 13),
        "width": st.integers(1, 13),
        "channels": st.sampled_from([1, 2, 5]),
        "stride": st.sampled_from([1, 2]),
        "dilation": st.sampled_from([1, 2]),
        "padding": st.sampled_from(["same", "symmetric"]),
        "data_format": st.sampled_from(["channels_last", "channels_first"]),
        "dtype": st.sampled_from(["float32", "float32", "bfloat16"]),
        "compiled": st.sampled_from(XLA),
    }
)


def one_change_at_a_time(*choices):
    """Every combination, of which those that differ from the first one in several places are neutral."""
    first = tuple(values[0] for values in choices)
    combinations = list(itertools.product(*choices))
    changes = [sum(map(operator.ne, combination, first)) for combination in combinations]
    marks = [[NEUTRAL] if count > 1 else [] for count in changes]
    return [pytest.param(*values, marks=mark) for values, mark in zip(combinations, marks, strict=True)]


def numbers(*shape, seed=0):
    """Standard normal numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def images(batch, height, width, channels, data_format):
    """A batch of noise."""
    x = numbers(batch, height, width, channels)
    return x if data_format == "channels_last" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def run(function, *arrays, compiled=False):
    """The function's results as float32 arrays; with `compiled`, TensorFlow compiles it by XLA."""
    if compiled:
        import tensorflow as tf

        function = tf.function(function, jit_compile=True)
    elif BACKEND == "jax":  # one program compiles faster than its operations one by one
        import jax

        function = jax.jit(function)
    results = function(*map(ops.convert_to_tensor, arrays))
    return keras.tree.map_structure(lambda y: ops.convert_to_numpy(ops.cast(y, "float32")), results)


def close(actual, expected, tolerance):
    """Assert equality up to `tolerance` of the largest number."""
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


def all_close(actual, expected, tolerance):
    """Assert as `close` of two sequences of arrays."""
    for ours, theirs in zip(actual, expected, strict=True):
        close(ours, theirs, tolerance)


def pair(operation, drawn, dtype="float32"):
    """Our function and Keras's of images, kernel and bias, both computing in `dtype`."""
    ours = our_ops.depthwise_convolution if operation == "depthwise" else our_ops.convolution
    options = {name: drawn[name] for name in ("stride", "dilation", "padding", "data_format")}

    def fast(x, kernel, bias):
        return ours(*(ops.cast(t, dtype) for t in (x, kernel, bias)), **options)

    def default(x, kernel, bias):
        return getattr(keras_default, operation)(x, kernel, bias, *options.values())

    return fast, default


def arrays_for(operation, drawn):
    """Images, kernel and bias."""
    size, channels = drawn["kernel_size"], drawn["channels"]
    filters = channels if operation == "depthwise" else 4
    kernel = numbers(size, size, channels, 1 if operation == "depthwise" else filters, seed=1)
    x = images(2, drawn["height"], drawn["width"], channels, drawn["data_format"])
    return x, kernel / size, numbers(filters, seed=2)


@pytest.mark.parametrize("operation", ["depthwise", "dense"])
@settings(max_examples=8)
@given(drawn=geometries)
def test_convolutions_agree_with_keras(operation, drawn):
    check_convolution(operation, drawn)


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["depthwise", "dense"])
@settings(max_examples=60)
@given(drawn=geometries)
def test_many_convolutions_agree_with_keras(operation, drawn):
    check_convolution(operation, drawn)
    check_gradients(operation, drawn)


def check_convolution(operation, drawn):
    arrays = arrays_for(operation, drawn)
    fast, default = pair(operation, drawn, drawn["dtype"])
    close(run(fast, *arrays, compiled=drawn["compiled"]), run(default, *arrays), TOLERANCES[drawn["dtype"]])


@pytest.mark.parametrize("operation", ["depthwise", "dense"])
@settings(max_examples=4)
@given(drawn=geometries)
def test_gradients_of_convolutions_agree_with_keras(operation, drawn):
    check_gradients(operation, drawn)


def check_gradients(operation, drawn):
    arrays = arrays_for(operation, drawn)
    fast, default = pair(operation, drawn, drawn["dtype"])
    found = gradients(fast, *arrays, compiled=drawn["compiled"])
    expected = gradients(default, *arrays)
    if drawn["dtype"] == "bfloat16":  # a bias's gradient is a long sum in bfloat16, by Keras's own functions too
        found, expected = found[:2], expected[:2]
    all_close(found, expected, TOLERANCES[drawn["dtype"]])


@pytest.mark.parametrize("compiled", XLA)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), pytest.param(2, "same", marks=NEUTRAL), (2, "symmetric")])
def test_second_gradients_of_depthwise_agree_with_a_sum_of_products(stride, padding, data_format, compiled):
    """The sum of products is plain arithmetic, of which every framework has all derivatives."""
    drawn = {"kernel_size": 3, "height": 5, "width": 6, "channels": 2, "stride": stride, "dilation": 1}
    drawn |= {"padding": padding, "data_format": data_format}
    x, kernel, bias = arrays_for("depthwise", drawn)
    fast, _ = pair("depthwise", drawn)

    def plain(x, kernel):
        return shifted.forward(x, kernel, stride, 1, padding, data_format)

    # Squared, so that the second derivatives by an argument alone are not zero.
    found = second_gradients(lambda x, k: ops.square(fast(x, k, bias)), x, kernel, compiled=compiled)
    offset = ops.convert_to_tensor(as_channels(bias, data_format))
    expected = second_gradients(lambda x, k: ops.square(plain(x, k) + offset), x, kernel)
    all_close(found, expected, 2e-5)


def as_channels(vector, data_format):
    """A vector that broadcasts over the channels."""
    return vector if data_format == "channels_last" else vector[:, None, None]


@pytest.mark.parametrize(
    ("shape", "data_format", "activation", "compiled"),
    one_change_at_a_time(
        [(2, 5, 6, 3), (1, 1, 1, 4), (3, 1, 1, 2)],
        ["channels_last", "channels_first"],
        ["linear", "relu", "relu6", "hard_silu", "silu", "gelu"],
        XLA,
    ),
)
def test_batch_norm_and_activation_agree_with_keras(shape, data_format, activation, compiled):
    x = images(*shape, data_format) * 3 + 1
    gamma, beta, mean = (numbers(shape[-1], seed=seed) for seed in (1, 2, 3))
    variance = np.square(numbers(shape[-1], seed=4)) + 0.1
    function = keras.activations.get(activation)
    with_given = (mean, variance, gamma, beta, 1e-3, function, data_format)
    expected = run(lambda x: keras_default.normalize(x, *with_given, False), x)
    tensors = [ops.convert_to_tensor(v) for v in with_given[:4]]
    ours = lambda x: our_ops.batch_norm(x, *tensors, 1e-3, function, data_format)  # noqa: E731
    close(run(ours, x, compiled=compiled), expected, 1e-5)
    rest = (1e-3, function, data_format)
    found = run(lambda *a: our_ops.batch_norm_training(*a, *rest), x, gamma, beta, compiled=compiled)
    all_close(found, run(lambda *a: keras_default.normalize_batch(*a, *rest), x, gamma, beta), 1e-5)
    if shape[0] * shape[1] * shape[2] > 3:  # three numbers, normalized, are at a kink of ReLU6
        # Squared, so that every second derivative is there.
        y = lambda f: lambda *a: ops.square(f(*a, *rest)[0])  # noqa: E731
        fast, default = y(our_ops.batch_norm_training), y(keras_default.normalize_batch)
        for derivatives in (gradients,) if data_format == "channels_first" else (gradients, second_gradients):
            found = derivatives(fast, x, gamma, beta, compiled=compiled)
            all_close(found, derivatives(default, x, gamma, beta), 1e-4)


@pytest.mark.parametrize(
    ("shape_and_filters", "data_format", "activation", "compiled"),
    one_change_at_a_time(
        [((2, 5, 6, 3), 8), ((2, 40, 45, 3), 6), ((2, 5, 6, 8), 3), ((1, 1, 1, 2), 4)],
        ["channels_last", "channels_first"],
        ["linear", "relu", "relu6", "hard_silu"],
        XLA,
    ),
)
def test_pointwise_batch_norm_agrees_with_keras(shape_and_filters, data_format, activation, compiled):
    shape, filters = shape_and_filters
    x = images(*shape, data_format) * 3 + 5
    kernel = numbers(1, 1, shape[-1], filters, seed=1)
    gamma, beta = numbers(filters, seed=2), numbers(filters, seed=3)
    rest = (1e-3, keras.activations.get(activation), data_format)
    arrays = (x, kernel, gamma, beta)
    found = run(lambda *a: our_ops.pointwise_batch_norm_training(*a, *rest), *arrays, compiled=compiled)
    all_close(found, run(lambda *a: keras_default.pointwise_normalize_batch(*a, *rest), *arrays), 2e-5)
    if shape[0] > 1:  # of one number the normalized one is zero, a kink
        y = lambda f: lambda *a: ops.square(f(*a, *rest)[0])  # noqa: E731
        fast, default = y(our_ops.pointwise_batch_norm_training), y(keras_default.pointwise_normalize_batch)
        once_is_enough = shape[1] > 5 or data_format == "channels_first"
        for derivatives in (gradients,) if once_is_enough else (gradients, second_gradients):
            found = derivatives(fast, *arrays, compiled=compiled)
            all_close(found, derivatives(default, *arrays), 1e-4)


def test_only_an_owner_may_be_overwritten():
    x = ops.convert_to_tensor(images(1, 4, 4, 3, "channels_last"))
    before = np.array(ops.convert_to_numpy(x))
    one = ops.ones((3,))
    for function in (keras.activations.relu, keras.activations.hard_silu):
        our_ops.batch_norm(x, one, one, one, one, 1e-3, function, "channels_last")
        our_ops.activate(x, function, "channels_last")
    np.testing.assert_array_equal(ops.convert_to_numpy(x), before)


@pytest.mark.parametrize("value_size", [4, 6])
def test_attention_agrees_with_keras(value_size):
    query, key = numbers(2, 3, 7, 4), numbers(2, 3, 5, 4, seed=1)
    value = numbers(2, 3, 5, value_size, seed=2)
    fast = formulations.fastest("attend", "channels_last")
    ours = lambda q, k, v: fast(q, k, v, None)  # noqa: E731
    default = lambda q, k, v: keras_default.attend(q, k, v, None)  # noqa: E731
    close(run(ours, query, key, value), run(default, query, key, value), 1e-5)
    all_close(gradients(ours, query, key, value), gradients(default, query, key, value), 1e-5)


def test_an_unknown_platform_computes_by_keras(monkeypatch):
    monkeypatch.setattr(formulations.native, "platform", lambda: "an abacus")
    normalizing = ("normalize", "normalize_batch", "pointwise_normalize_batch", "activate")
    for operation in ("dense", "pointwise", "depthwise", "attend", *normalizing):
        assert formulations.fastest(operation, "channels_last") is getattr(keras_default, operation)


# --- what would cost speed without a wrong number -------------------------------------------------------------------


def small_models():
    """A model of each generation, small, under either padding."""
    import mobilenet_zoo

    options = {"input_shape": (64, 64, 3), "num_classes": 3, "width_multiplier": 0.25}
    names = ("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_hybrid_medium")
    paddings = ("same", "symmetric", "symmetric", "same")
    return [
        mobilenet_zoo.create_model(name, padding=padding, **options)
        for name, padding in zip(names, paddings, strict=True)
    ]


@pytest.mark.skipif(BACKEND != "jax", reason="a jaxpr is JAX's")
def test_no_grouped_convolution_on_a_cpu():
    import jax

    for model in small_models():
        x = np.zeros((2, 64, 64, 3), "float32")
        weights = [[v.value for v in part] for part in (model.trainable_variables, model.non_trainable_variables)]
        for training in (False, True):
            forward = lambda t, n, x: model.stateless_call(t, n, x, training=training)[0]  # noqa: B023,E731
            text = str(jax.make_jaxpr(forward)(*weights, x))
            groups = {part.split()[0] for part in text.split("feature_group_count=")[1:]}
            assert groups == {"1"}, model.name


@pytest.mark.skipif(BACKEND != "torch", reason="the profiler is PyTorch's")
def test_no_copy_of_a_layout_larger_than_a_kernel():
    import torch
    from torch.profiler import ProfilerActivity, profile

    for model in small_models():
        x = torch.zeros(2, 64, 64, 3)
        with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
            model(x, training=False)
        largest = max(np.prod(variable.shape) for variable in model.weights)
        padded = [event.input_shapes[0] for event in seen.events() if event.name == "aten::constant_pad_nd"]
        copied = [event.input_shapes[0] for event in seen.events() if event.name == "aten::copy_"]
        # One-sided padding is the one thing that may copy an image; only the default padding is one-sided.
        assert not padded or model.get_layer("stem").padding == "same"
        large = [shape for shape in copied if np.prod(shape) > largest and shape not in padded]
        assert copied and not large, (model.name, large)


@pytest.mark.skipif(BACKEND != "jax", reason="these are JAX's transformations")
@pytest.mark.parametrize("stride", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_depthwise_under_the_transformations_of_jax(stride):
    import jax
    import jax.numpy as jnp

    drawn = {"stride": stride, "dilation": 1, "padding": "same", "data_format": "channels_last"}
    x, kernel, bias = arrays_for("depthwise", drawn | {"kernel_size": 3, "height": 6, "width": 7, "channels": 2})
    fast, default = pair("depthwise", drawn)

    def score(function):
        return lambda kernel, x: jnp.sum(jnp.sin(function(x, kernel, bias)))

    stacked = jnp.stack([kernel, 2 * kernel])
    transforms = {
        "jit": lambda f: jax.jit(jax.grad(score(f)))(kernel, x),
        "vmap over kernels": lambda f: jax.vmap(jax.grad(score(f)), (0, None))(stacked, x),
        "vmap over images": lambda f: jax.vmap(jax.grad(score(f)), (None, 0))(kernel, x[:, None]),
        "checkpoint": lambda f: jax.grad(jax.checkpoint(score(f)))(kernel, x),
        "hessian": lambda f: jax.jit(jax.jacfwd(jax.grad(score(f))))(kernel, x),
        "reverse over reverse": lambda f: jax.jit(jax.jacrev(jax.grad(score(f))))(kernel, x),
    }
    for name, transform in transforms.items():
        np.testing.assert_allclose(transform(fast), transform(default), rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.skipif(BACKEND != "jax", reason="sharding is JAX's")
def test_of_a_sharded_batch_nothing_is_gathered_but_the_gradient_of_the_kernel():
    # JAX is told of its devices before it starts, so another process has the two.
    command = [sys.executable, "-m", "tests.common.sharded_worker"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    for case in json.loads(result.stdout):
        # Of each of the nine taps of 6 channels, the sum over the devices.
        assert case["collectives"] == {"all-reduce": 9 * 6}, case
        assert case["error"] < 1e-4, case


@pytest.mark.skipif(BACKEND != "torch", reason="torch.compile is PyTorch's")
@pytest.mark.parametrize("name", ["mobilenetv2_100", "mobilenetv4_hybrid_medium"])
def test_torch_compile_finds_no_graph_break(name):
    import torch

    import mobilenet_zoo

    model = mobilenet_zoo.create_model(name, input_shape=(64, 64, 3), num_classes=3, width_multiplier=0.25)
    x = keras.ops.convert_to_tensor(numbers(1, 64, 64, 3))
    compiled = torch.compile(lambda x: model(x, training=False), fullgraph=True, backend="eager")
    with torch.no_grad():
        close(compiled(x).cpu().numpy(), model(x, training=False).cpu().numpy(), 1e-5)
