"""Initial values have the distributions of timm, or of the paper or code that a layer comes from."""

import gzip
import json
import re

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.checkpoints import LAYOUTS, state_dict
from mobilenet_common.layers import (
    ChannelAttention,
    ConvNormActivation,
    DepthwiseSeparable,
    FusedInvertedBottleneck,
    InvertedResidual,
    MobileAttention,
    SqueezeExcite,
    UniversalInvertedBottleneck,
)
from mobilenet_v4 import create_mobilenetv4
from tests import initial_values, peers, references
from tests.reference import make_initial

SIZES = {"heads": 4, "key_size": 24, "value_size": 40, "kv_kernel_size": 3, "kv_strides": 2, "query_strides": 2}
CHANNELS = 64
BLOCKS = {
    "conv": lambda: ConvNormActivation(96, 3, use_bias=True),
    "group": lambda: ConvNormActivation(96, 1, normalization="group"),
    "depthwise": lambda: ConvNormActivation(None, 5, 2, use_bias=True, normalization="layer"),
    "separable": lambda: DepthwiseSeparable(96, 3, layer_scale=0.1),
    "inverted": lambda: InvertedResidual(CHANNELS, 128, 5, squeeze_filters=24, layer_scale=0.1),
    "fused": lambda: FusedInvertedBottleneck(CHANNELS, 96, 3, layer_scale=0.1),
    "universal": lambda: UniversalInvertedBottleneck(CHANNELS, 128, 3, 5, end_kernel_size=7, layer_scale=0.1),
    "attention": lambda: MobileAttention(96, layer_scale=0.1, **SIZES),
    "heads": lambda: MobileAttention(96, layer_scale=0.1, multi_query=False, **SIZES),
    "channel_attention": lambda: ChannelAttention(4, 2),
    "squeeze_excite": lambda: SqueezeExcite(24),
}
CONSTANTS = {"bias": 0, "beta": 0, "moving_mean": 0, "gamma": 1, "moving_variance": 1}


def load_timm_distributions():
    """Return `{model: {tensor: [kind, number]}}`, as measured by `make_initial`."""
    with gzip.open(references.FOLDER / "initial.json.gz", "rt") as file:
        return json.load(file)


def check_distributions(arrays, expected):
    """Assert that `{name: array}` has the distributions `expected`, `{name: [kind, number]}` with the same names.

    Tensors are checked one by one. Tensors whose names differ only in numbers are also checked together, which is more
    precise.
    """
    assert arrays.keys() == expected.keys()
    pools = {}
    for name, (kind, number) in expected.items():
        values = arrays[name]
        if kind == "constant":
            assert (values == np.float32(number)).all(), f"{name} is not constant {number}"
            continue
        assert abs(values.std() / number - 1) < 6 / np.sqrt(2 * values.size), f"{name}: {values.std()}, not {number}"
        pools.setdefault(re.sub(r"\d+", "#", name), initial_values.Pool()).add(kind, number, values)
    for name, pool in pools.items():
        pool.check(name)


@pytest.mark.neutral
@pytest.mark.parametrize("name", make_initial.MODELS)
def test_model_initialization_matches_timm(name):
    model = mobilenet_zoo.create_model(name, input_shape=(32, 32, 3))
    expected = load_timm_distributions()[name]
    arrays = {key: value for key, value in state_dict(model, "timm").items() if key in expected}
    trained = {id(variable) for variable in model.trainable_variables}
    assert arrays.keys() == {entry.name for entry in LAYOUTS["timm"].entries(model) if id(entry.variable) in trained}
    check_distributions(arrays, expected)


@pytest.mark.across
@pytest.mark.slow
@pytest.mark.parametrize("name", make_initial.MODELS)
def test_stored_distributions_match_the_installed_timm(name):
    check_distributions(initial_values.parameters(peers.timm().create_model(name)), load_timm_distributions()[name])


def expected_distribution(layer, shape):
    """Return `[kind, standard deviation]` of a kernel by the formula of the paper or code that the layer comes from."""
    window, (inputs, outputs) = shape[0] * shape[1], shape[2:]
    if isinstance(layer, ChannelAttention):  # PyTorch's default: uniform, up to 1 / sqrt(fan-in)
        return ["uniform", 1 / np.sqrt(3 * window * inputs)]
    if isinstance(layer, MobileAttention):  # Glorot & Bengio, 2010: uniform, with the variance 2 / (fan-in + fan-out)
        return ["uniform", np.sqrt(2 / (window * (inputs + outputs)))]
    return ["normal", np.sqrt(2 / (window * outputs))]  # He et al., 2015


@pytest.mark.neutral
@pytest.mark.parametrize("block", BLOCKS)
def test_kernels_have_the_distribution_of_their_source(block):
    pools = {}
    for _ in range(8):
        layer = BLOCKS[block]()
        layer.build((1, 8, 8, CHANNELS))
        for variable, values in zip(layer.weights, layer.get_weights(), strict=True):
            path = "/".join(variable.path.split("/")[-2:])
            if variable.name == "kernel":
                pools.setdefault(path, initial_values.Pool()).add(*expected_distribution(layer, values.shape), values)
            else:
                expected = 0.1 if path == "layer_scale/gamma" else CONSTANTS[variable.name]
                assert (values == np.float32(expected)).all(), path
    assert pools
    for path, pool in pools.items():
        pool.check(f"{block}, {path}")


def test_attention_initialization_matches_keras():
    """The code of MobileNetV4 uses the defaults of `Conv2D` and `DepthwiseConv2D`."""
    layer = MobileAttention(96, 4, 24, kv_kernel_size=3)
    layer.build((1, 8, 8, 512))
    for part in (layer.key_down, layer.value_down, layer.query):
        keras_layer = keras.layers.Conv2D(96, 1) if part.filters else keras.layers.DepthwiseConv2D(3)
        keras_layer.build((1, 8, 8, 512))
        values, expected = part.get_weights()[0], keras_layer.get_weights()[0]
        assert values.shape == expected.shape
        quantiles = np.linspace(0, 1, 11)
        difference = np.quantile(values, quantiles) - np.quantile(expected, quantiles)
        assert np.abs(difference).max() < 0.1 * expected.std()


@pytest.mark.across
def test_channel_attention_initialization_matches_pytorch():
    torch = pytest.importorskip("torch")
    layer = ChannelAttention(4, 2)
    layer.build((1, 8, 8, 96))
    for part, size in ((layer.query, 1), (layer.kv_down, 3)):
        values, expected = part.get_weights()[0], torch.nn.Conv2d(96, 96, size).weight.detach().numpy()
        kinds = {initial_values.fit_distribution([array])[0] for array in (values, expected)}
        assert kinds == {"uniform"}
        np.testing.assert_allclose(np.abs(values).max(), np.abs(expected).max(), rtol=0.01)


@pytest.mark.neutral
@pytest.mark.parametrize("num_classes", [2, 10, 1000, 3000])
def test_classifier_initialization_assumes_at_least_1000_classes(num_classes):
    model = create_mobilenetv4("conv_small", num_classes, (32, 32, 3), width_multiplier=0.1)
    kernel, bias = model.get_layer("classifier").get_weights()
    limit = 1 / np.sqrt(max(num_classes, 1000))
    assert initial_values.fit_distribution([kernel])[0] == "uniform"
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert not bias.any()
