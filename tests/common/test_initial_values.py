"""New parameters are drawn as timm draws them, or as the source of their kind does."""

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


def timms():
    """`{model: {tensor: [kind, number]}}`, as `make_initial` measured it."""
    with gzip.open(references.FOLDER / "initial.json.gz", "rt") as file:
        return json.load(file)


def compare(found, expected):
    """Assert that the arrays `found` were drawn as `expected`, `{name: [kind, number]}` of the same names, says.

    Every tensor alone, and all that differ by a number in their names together, which is more exact.
    """
    assert found.keys() == expected.keys()
    pools = {}
    for name, (kind, number) in expected.items():
        values = found[name]
        if kind == "constant":
            assert (values == np.float32(number)).all(), f"{name} is not {number} throughout"
            continue
        assert abs(values.std() / number - 1) < 6 / np.sqrt(2 * values.size), f"{name}: {values.std()}, not {number}"
        pools.setdefault(re.sub(r"\d+", "#", name), initial_values.Pool()).add(kind, number, values)
    for name, pool in pools.items():
        pool.check(name)


@pytest.mark.neutral
@pytest.mark.parametrize("name", make_initial.MODELS)
def test_models_start_as_timms(name):
    model = mobilenet_zoo.create_model(name, input_shape=(32, 32, 3))
    expected = timms()[name]
    found = {key: value for key, value in state_dict(model, "timm").items() if key in expected}
    trained = {id(variable) for variable in model.trainable_variables}
    assert found.keys() == {entry.name for entry in LAYOUTS["timm"].entries(model) if id(entry.variable) in trained}
    compare(found, expected)


@pytest.mark.across
@pytest.mark.slow
@pytest.mark.parametrize("name", make_initial.MODELS)
def test_the_table_is_what_timm_draws(name):
    compare(initial_values.parameters(peers.timm().create_model(name)), timms()[name])


def rule(layer, shape):
    """`[kind, deviation]` of a kernel by the formula of its source."""
    window, (inputs, outputs) = shape[0] * shape[1], shape[2:]
    if isinstance(layer, ChannelAttention):  # PyTorch's default: uniform, up to 1 / sqrt(fan-in)
        return ["uniform", 1 / np.sqrt(3 * window * inputs)]
    if isinstance(layer, MobileAttention):  # Glorot & Bengio, 2010: uniform, with the variance 2 / (fan-in + fan-out)
        return ["uniform", np.sqrt(2 / (window * (inputs + outputs)))]
    return ["normal", np.sqrt(2 / (window * outputs))]  # He et al., 2015


@pytest.mark.neutral
@pytest.mark.parametrize("block", BLOCKS)
def test_every_kernel_follows_its_rule(block):
    pools = {}
    for _ in range(8):
        layer = BLOCKS[block]()
        layer.build((1, 8, 8, CHANNELS))
        for variable, values in zip(layer.weights, layer.get_weights(), strict=True):
            place = "/".join(variable.path.split("/")[-2:])
            if variable.name == "kernel":
                pools.setdefault(place, initial_values.Pool()).add(*rule(layer, values.shape), values)
            else:
                expected = 0.1 if place == "layer_scale/gamma" else CONSTANTS[variable.name]
                assert (values == np.float32(expected)).all(), place
    assert pools
    for place, pool in pools.items():
        pool.check(f"{block}, {place}")


def test_attention_starts_as_keras_starts_its_own_layers():
    """MobileNetV4's own code leaves it to the defaults of `Conv2D` and `DepthwiseConv2D`."""
    layer = MobileAttention(96, 4, 24, kv_kernel_size=3)
    layer.build((1, 8, 8, 512))
    for ours in (layer.key_down, layer.value_down, layer.query):
        theirs = keras.layers.Conv2D(96, 1) if ours.filters else keras.layers.DepthwiseConv2D(3)
        theirs.build((1, 8, 8, 512))
        values, expected = ours.get_weights()[0], theirs.get_weights()[0]
        assert values.shape == expected.shape
        quantiles = np.linspace(0, 1, 11)
        difference = np.quantile(values, quantiles) - np.quantile(expected, quantiles)
        assert np.abs(difference).max() < 0.1 * expected.std()


@pytest.mark.across
def test_channel_attention_starts_as_pytorch_starts_its_own_layers():
    torch = pytest.importorskip("torch")
    layer = ChannelAttention(4, 2)
    layer.build((1, 8, 8, 96))
    for ours, size in ((layer.query, 1), (layer.kv_down, 3)):
        values, expected = ours.get_weights()[0], torch.nn.Conv2d(96, 96, size).weight.detach().numpy()
        assert initial_values.described([values])[0] == initial_values.described([expected])[0] == "uniform"
        np.testing.assert_allclose(np.abs(values).max(), np.abs(expected).max(), rtol=0.01)


@pytest.mark.neutral
@pytest.mark.parametrize("num_classes", [2, 10, 1000, 3000])
def test_the_classifier_starts_as_timms_for_1000_classes_and_never_wider(num_classes):
    model = create_mobilenetv4("conv_small", num_classes, (32, 32, 3), width_multiplier=0.1)
    kernel, bias = model.get_layer("classifier").get_weights()
    limit = 1 / np.sqrt(max(num_classes, 1000))
    assert initial_values.described([kernel])[0] == "uniform"
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert not bias.any()
