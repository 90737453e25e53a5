"""Compare the values and gradients of every formulation in `common/ops` with those of Keras's operations."""

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

from mobilenet_common import ops as common_ops
from mobilenet_common.ops import formulations
from mobilenet_common.ops.formulations import keras_default, shifted
from tests import created
from tests.common.gradients import gradients, second_gradients

ROOT = Path(__file__).resolve().parents[2]
BACKEND = keras.backend.backend()
NEUTRAL = pytest.mark.neutral  # for cases that take the same code path as other cases, under every backend
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


def all_combinations(*choices):
    """Return all combinations as pytest parameters; those that differ from the first in several values are neutral."""
    first = tuple(values[0] for values in choices)
    combinations = list(itertools.product(*choices))
    changes = [sum(map(operator.ne, combination, first)) for combination in combinations]
    marks = [[NEUTRAL] if count > 1 else [] for count in changes]
    return [pytest.param(*values, marks=mark) for values, mark in zip(combinations, marks, strict=True)]


def random_array(*shape, seed=0):
    """Return standard normal values in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def random_images(batch, height, width, channels, data_format):
    """Return a batch of noise images."""
    x = random_array(batch, height, width, channels)
    return x if data_format == "channels_last" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def run(function, *arrays, compiled=False):
    """Return a function's results as float32 arrays. With `compiled`, TensorFlow compiles the function with XLA."""
    if compiled:
        import tensorflow as tf

        function = tf.function(function, jit_compile=True)
    elif BACKEND == "jax":  # compiling one program is faster than compiling its operations one by one
        import jax

        function = jax.jit(function)
    results = function(*map(ops.convert_to_tensor, arrays))
    return keras.tree.map_structure(lambda y: ops.convert_to_numpy(ops.cast(y, "float32")), results)


def assert_close(actual, expected, tolerance):
    """Assert that arrays are equal up to `tolerance` times the largest expected value or 1, whichever is larger."""
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


def assert_all_close(actual, expected, tolerance):
    """Assert that two sequences of arrays are equal as in `assert_close`."""
    for actual_array, expected_array in zip(actual, expected, strict=True):
        assert_close(actual_array, expected_array, tolerance)


def function_pair(operation, geometry, dtype="float32"):
    """Return this library's convolution, computed in `dtype`, and Keras's, as functions of images, kernel and bias."""
    convolution_op = common_ops.depthwise_convolution if operation == "depthwise" else common_ops.convolution
    options = {name: geometry[name] for name in ("stride", "dilation", "padding", "data_format")}

    def fast(x, kernel, bias):
        return convolution_op(*(ops.cast(t, dtype) for t in (x, kernel, bias)), **options)

    def default(x, kernel, bias):
        return getattr(keras_default, operation)(x, kernel, bias, *options.values())

    return fast, default


def random_inputs(operation, geometry):
    """Return random images, kernel and bias."""
    size, channels = geometry["kernel_size"], geometry["channels"]
    filters = channels if operation == "depthwise" else 4
    kernel = random_array(size, size, channels, 1 if operation == "depthwise" else filters, seed=1)
    x = random_images(2, geometry["height"], geometry["width"], channels, geometry["data_format"])
    return x, kernel / size, random_array(filters, seed=2)


@pytest.mark.parametrize("operation", ["depthwise", "dense"])
@settings(max_examples=8)
@given(geometry=geometries)
def test_convolutions_match_keras(operation, geometry):
    check_convolution(operation, geometry)


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["depthwise", "dense"])
@settings(max_examples=60)
@given(geometry=geometries)
def test_many_convolutions_match_keras(operation, geometry):
    check_convolution(operation, geometry)
    check_gradients(operation, geometry)


def check_convolution(operation, geometry):
    arrays = random_inputs(operation, geometry)
    fast, default = function_pair(operation, geometry, geometry["dtype"])
    assert_close(
        run(fast, *arrays, compiled=geometry["compiled"]), run(default, *arrays), TOLERANCES[geometry["dtype"]]
    )


@pytest.mark.parametrize("operation", ["depthwise", "dense"])
@settings(max_examples=4)
@given(geometry=geometries)
def test_convolution_gradients_match_keras(operation, geometry):
    check_gradients(operation, geometry)


def check_gradients(operation, geometry):
    arrays = random_inputs(operation, geometry)
    fast, default = function_pair(operation, geometry, geometry["dtype"])
    fast_gradients = gradients(fast, *arrays, compiled=geometry["compiled"])
    expected = gradients(default, *arrays)
    if geometry["dtype"] == "bfloat16":  # the bias gradient, a long sum, is inexact in bfloat16 (in Keras too)
        fast_gradients, expected = fast_gradients[:2], expected[:2]
    assert_all_close(fast_gradients, expected, TOLERANCES[geometry["dtype"]])


@pytest.mark.parametrize("compiled", XLA)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), pytest.param(2, "same", marks=NEUTRAL), (2, "symmetric")])
def test_depthwise_second_gradients_match_a_sum_of_products(stride, padding, data_format, compiled):
    """The sum of products uses basic arithmetic, which every framework differentiates any number of times."""
    geometry = {"kernel_size": 3, "height": 5, "width": 6, "channels": 2, "stride": stride, "dilation": 1}
    geometry |= {"padding": padding, "data_format": data_format}
    x, kernel, bias = random_inputs("depthwise", geometry)
    fast, _ = function_pair("depthwise", geometry)

    def sum_of_products(x, kernel):
        return shifted.forward(x, kernel, stride, 1, padding, data_format)

    # Square the outputs, so that second derivatives with respect to a single argument aren't zero.
    derivatives = second_gradients(lambda x, k: ops.square(fast(x, k, bias)), x, kernel, compiled=compiled)
    offset = ops.convert_to_tensor(expand_to_channels(bias, data_format))
    expected = second_gradients(lambda x, k: ops.square(sum_of_products(x, k) + offset), x, kernel)
    assert_all_close(derivatives, expected, 2e-5)


def expand_to_channels(vector, data_format):
    """Reshape a vector so that it broadcasts over the channels of images."""
    return vector if data_format == "channels_last" else vector[:, None, None]


@pytest.mark.parametrize(
    ("shape", "data_format", "activation", "compiled"),
    all_combinations(
        [(2, 5, 6, 3), (1, 1, 1, 4), (3, 1, 1, 2)],
        ["channels_last", "channels_first"],
        ["linear", "relu", "relu6", "hard_silu", "silu", "gelu"],
        XLA,
    ),
)
def test_batch_norm_and_activation_match_keras(shape, data_format, activation, compiled):
    x = random_images(*shape, data_format) * 3 + 1
    gamma, beta, mean = (random_array(shape[-1], seed=seed) for seed in (1, 2, 3))
    variance = np.square(random_array(shape[-1], seed=4)) + 0.1
    function = keras.activations.get(activation)
    arguments = (mean, variance, gamma, beta, 1e-3, function, data_format)
    expected = run(lambda x: keras_default.normalize(x, *arguments, False), x)
    tensors = [ops.convert_to_tensor(v) for v in arguments[:4]]
    fast_batch_norm = lambda x: common_ops.batch_norm(x, *tensors, 1e-3, function, data_format)  # noqa: E731
    assert_close(run(fast_batch_norm, x, compiled=compiled), expected, 1e-5)
    rest = (1e-3, function, data_format)
    results = run(lambda *a: common_ops.batch_norm_training(*a, *rest), x, gamma, beta, compiled=compiled)
    assert_all_close(results, run(lambda *a: keras_default.normalize_batch(*a, *rest), x, gamma, beta), 1e-5)
    if shape[0] * shape[1] * shape[2] > 3:  # with fewer values per channel, one can land on a kink of ReLU6
        # Square the outputs, so that no second derivative is zero.
        squared = lambda f: lambda *a: ops.square(f(*a, *rest)[0])  # noqa: E731
        fast, default = squared(common_ops.batch_norm_training), squared(keras_default.normalize_batch)
        for derivatives in (gradients,) if data_format == "channels_first" else (gradients, second_gradients):
            results = derivatives(fast, x, gamma, beta, compiled=compiled)
            assert_all_close(results, derivatives(default, x, gamma, beta), 1e-4)


@pytest.mark.parametrize(
    ("shape_and_filters", "data_format", "activation", "compiled"),
    all_combinations(
        [((2, 5, 6, 3), 8), ((2, 40, 45, 3), 6), ((2, 5, 6, 8), 3), ((1, 1, 1, 2), 4)],
        ["channels_last", "channels_first"],
        ["linear", "relu", "relu6", "hard_silu"],
        XLA,
    ),
)
def test_pointwise_batch_norm_matches_keras(shape_and_filters, data_format, activation, compiled):
    shape, filters = shape_and_filters
    x = random_images(*shape, data_format) * 3 + 5
    kernel = random_array(1, 1, shape[-1], filters, seed=1)
    gamma, beta = random_array(filters, seed=2), random_array(filters, seed=3)
    rest = (1e-3, keras.activations.get(activation), data_format)
    arrays = (x, kernel, gamma, beta)
    results = run(lambda *a: common_ops.pointwise_batch_norm_training(*a, *rest), *arrays, compiled=compiled)
    assert_all_close(results, run(lambda *a: keras_default.pointwise_normalize_batch(*a, *rest), *arrays), 2e-5)
    if shape[0] > 1:  # a single value per channel normalizes to zero, the kink of ReLU
        squared = lambda f: lambda *a: ops.square(f(*a, *rest)[0])  # noqa: E731
        fast, default = (
            squared(common_ops.pointwise_batch_norm_training),
            squared(keras_default.pointwise_normalize_batch),
        )
        first_order_only = shape[1] > 5 or data_format == "channels_first"
        for derivatives in (gradients,) if first_order_only else (gradients, second_gradients):
            results = derivatives(fast, *arrays, compiled=compiled)
            assert_all_close(results, derivatives(default, *arrays), 1e-4)


def test_ops_do_not_modify_their_input():
    x = ops.convert_to_tensor(random_images(1, 4, 4, 3, "channels_last"))
    before = np.array(ops.convert_to_numpy(x))
    vector = ops.ones((3,))
    for function in (keras.activations.relu, keras.activations.hard_silu):
        common_ops.batch_norm(x, vector, vector, vector, vector, 1e-3, function, "channels_last")
        common_ops.activate(x, function, "channels_last")
    np.testing.assert_array_equal(ops.convert_to_numpy(x), before)


@pytest.mark.parametrize("value_size", [4, 6])
def test_attention_matches_keras(value_size):
    query, key = random_array(2, 3, 7, 4), random_array(2, 3, 5, 4, seed=1)
    value = random_array(2, 3, 5, value_size, seed=2)
    fast = formulations.fastest("attend", "channels_last")
    fast_attention = lambda q, k, v: fast(q, k, v, None)  # noqa: E731
    default = lambda q, k, v: keras_default.attend(q, k, v, None)  # noqa: E731
    assert_close(run(fast_attention, query, key, value), run(default, query, key, value), 1e-5)
    assert_all_close(gradients(fast_attention, query, key, value), gradients(default, query, key, value), 1e-5)


def test_unknown_platform_uses_keras_operations(monkeypatch):
    monkeypatch.setattr(formulations.native, "platform", lambda: "unknown")
    normalizing = ("normalize", "normalize_batch", "pointwise_normalize_batch", "activate")
    for operation in ("dense", "pointwise", "depthwise", "attend", *normalizing):
        assert formulations.fastest(operation, "channels_last") is getattr(keras_default, operation)


# --- performance ----------------------------------------------------------------------------------------------------


def build_small_models():
    """Build a small model of each generation, two of them with each padding."""
    import mobilenet_zoo

    options = {"input_shape": (64, 64, 3), "num_classes": 3, "width_multiplier": 0.25}
    names = ("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_hybrid_medium")
    paddings = ("same", "symmetric", "symmetric", "same")
    return [
        mobilenet_zoo.create_model(name, padding=padding, **options)
        for name, padding in zip(names, paddings, strict=True)
    ]


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX has jaxprs")
def test_cpu_uses_no_grouped_convolution():
    import jax

    for model in build_small_models():
        x = np.zeros((2, 64, 64, 3), "float32")
        weights = [[v.value for v in part] for part in (model.trainable_variables, model.non_trainable_variables)]
        for training in (False, True):
            forward = lambda t, n, x: model.stateless_call(t, n, x, training=training)[0]  # noqa: B023,E731
            text = str(jax.make_jaxpr(forward)(*weights, x))
            groups = {part.split()[0] for part in text.split("feature_group_count=")[1:]}
            assert groups == {"1"}, model.name


@pytest.mark.skipif(BACKEND != "torch", reason="uses the profiler of PyTorch")
def test_no_layout_copy_is_larger_than_a_kernel():
    import torch
    from torch.profiler import ProfilerActivity, profile

    for model in build_small_models():
        x = torch.zeros(2, 64, 64, 3)
        with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as trace:
            model(x, training=False)
        largest = max(np.prod(variable.shape) for variable in model.weights)
        padded = [event.input_shapes[0] for event in trace.events() if event.name == "aten::constant_pad_nd"]
        copied = [event.input_shapes[0] for event in trace.events() if event.name == "aten::copy_"]
        # Only one-sided padding may copy an image, and only "same" padding is one-sided.
        assert not padded or model.get_layer("stem").padding == "same"
        large = [shape for shape in copied if np.prod(shape) > largest and shape not in padded]
        assert copied and not large, (model.name, large)


@pytest.mark.skipif(BACKEND != "jax", reason="the transformations are specific to JAX")
@pytest.mark.parametrize("stride", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_depthwise_supports_jax_transformations(stride):
    import jax
    import jax.numpy as jnp

    geometry = {"stride": stride, "dilation": 1, "padding": "same", "data_format": "channels_last"}
    x, kernel, bias = random_inputs("depthwise", geometry | {"kernel_size": 3, "height": 6, "width": 7, "channels": 2})
    fast, default = function_pair("depthwise", geometry)

    def loss(function):
        return lambda kernel, x: jnp.sum(jnp.sin(function(x, kernel, bias)))

    stacked = jnp.stack([kernel, 2 * kernel])
    transforms = {
        "jit": lambda f: jax.jit(jax.grad(loss(f)))(kernel, x),
        "vmap over kernels": lambda f: jax.vmap(jax.grad(loss(f)), (0, None))(stacked, x),
        "vmap over images": lambda f: jax.vmap(jax.grad(loss(f)), (None, 0))(kernel, x[:, None]),
        "checkpoint": lambda f: jax.grad(jax.checkpoint(loss(f)))(kernel, x),
        "hessian": lambda f: jax.jit(jax.jacfwd(jax.grad(loss(f))))(kernel, x),
        "reverse over reverse": lambda f: jax.jit(jax.jacrev(jax.grad(loss(f))))(kernel, x),
    }
    for name, transform in transforms.items():
        np.testing.assert_allclose(transform(fast), transform(default), rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.skipif(BACKEND != "jax", reason="tests sharding with JAX")
def test_sharded_batch_reduces_only_the_kernel_gradient():
    # JAX fixes its number of devices at startup, so a separate process runs with two devices.
    command = [sys.executable, "-m", "tests.common.sharded_worker"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    for case in json.loads(result.stdout):
        # The gradient of the kernel, with nine taps of 6 channels, is summed over the devices.
        assert case["collectives"] == {"all-reduce": 9 * 6}, case
        assert case["error"] < 1e-4, case


@pytest.mark.skipif(BACKEND != "torch", reason="only PyTorch has torch.compile")
@pytest.mark.parametrize(
    "name",
    [
        "tiny",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mobilenetv2_100", "mobilenetv4_hybrid_medium")),
    ],
)
def test_torch_compile_has_no_graph_break(name):
    import torch

    import mobilenet_zoo

    if name == "tiny":
        model = created.tiny(num_classes=3, input_shape=(64, 64, 3))
    else:
        model = mobilenet_zoo.create_model(name, input_shape=(64, 64, 3), num_classes=3, width_multiplier=0.25)
    x = keras.ops.convert_to_tensor(random_array(1, 64, 64, 3))
    compiled = torch.compile(lambda x: model(x, training=False), fullgraph=True, backend="eager")
    with torch.no_grad():
        assert_close(compiled(x).cpu().numpy(), model(x, training=False).cpu().numpy(), 1e-5)
