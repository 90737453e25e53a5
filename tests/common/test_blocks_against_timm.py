"""Block options that no published model uses match timm's blocks."""

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.architecture import Architecture, Attention, Universal
from mobilenet_common.layers import (
    DepthwiseSeparable,
    FusedInvertedBottleneck,
    InvertedResidual,
    MobileAttention,
    UniversalInvertedBottleneck,
)
from mobilenet_v4 import create_mobilenetv4
from tests import peers, references, seeded

HEADS = {"heads": 3, "key_size": 8, "value_size": 12}
ROWS = {
    "uib_start_strides": Universal(3, 0, 32, 24, 2),
    "uib_end_strides": Universal(0, 0, 32, 24, 2, end=3),
    "uib_middle_strides": Universal(3, 5, 32, 24, 2, end=3),
    "uib_three_kernels": Universal(5, 3, 48, 16, end=5),
    "uib_without_shortcut": Universal(0, 3, 32, 16, shortcut=False, layer_scale=False),
    "mqa_sizes": Attention(16, **HEADS),
    "mqa_query_strides": Attention(16, query_stride=(2, 1), **HEADS),
    "mqa_both_strides": Attention(16, query_stride=(3, 2), kv_kernel=5, kv_stride=2, **HEADS),
    "mqa_plain": Attention(24, kv_kernel=3, kv_stride=2, shortcut=False, layer_scale=False, **HEADS),
    "mha": Attention(16, 4, 4, multi_query=False),
}


SYMMETRIC, SAME = {"padding": "symmetric"}, {"padding": "same"}
SE = {"squeeze_filters": 6}
SIZES = (3, 8, 12)
# Rows of an architecture have no padding or dilation, so these are tested on layers.
LAYERS = {
    "separable_same": lambda **o: DepthwiseSeparable(24, 5, 2, **SAME, **o),
    "separable_shortcut": lambda **o: DepthwiseSeparable(16, shortcut=True, activation="silu", **o),
    "separable_average": lambda **o: DepthwiseSeparable(24, 3, 2, antialias="average", **SYMMETRIC, **o),
    "separable_dilated": lambda **o: DepthwiseSeparable(24, 5, dilation_rate=2, **o),
    "separable_group": lambda **o: DepthwiseSeparable(24, 3, 2, normalization="group", **SYMMETRIC, **o),
    "inverted_same": lambda **o: InvertedResidual(24, 32, 5, 2, **SE, **SAME, **o),
    "inverted_average": lambda **o: InvertedResidual(24, 32, 3, 2, antialias="average", **SE, **SYMMETRIC, **o),
    "inverted_blur": lambda **o: InvertedResidual(
        24, 32, 3, 2, antialias="blur", activation="silu", **SE, **SYMMETRIC, **o
    ),
    "inverted_dilated": lambda **o: InvertedResidual(16, 32, 5, dilation_rate=2, **SE, **o),
    "inverted_without_shortcut": lambda **o: InvertedResidual(16, 32, shortcut=False, activation="hard_swish", **o),
    "inverted_layer": lambda **o: InvertedResidual(16, 32, normalization="layer", **SE, **o),
    "unexpanded_same": lambda **o: InvertedResidual(24, None, 3, 2, **SE, **SAME, **o),
    "unexpanded_shortcut": lambda **o: InvertedResidual(16, None, **SE, **o),
    "unexpanded_average": lambda **o: InvertedResidual(16, None, 3, 2, antialias="average", **SE, **SYMMETRIC, **o),
    "fused_shortcut": lambda **o: FusedInvertedBottleneck(16, 32, activation="gelu", **o),
    "fused_same": lambda **o: FusedInvertedBottleneck(24, 32, 5, 2, **SAME, **o),
    "fused_average": lambda **o: FusedInvertedBottleneck(24, 32, 3, 2, antialias="average", **SYMMETRIC, **o),
    "fused_blur": lambda **o: FusedInvertedBottleneck(24, 32, 5, 2, antialias="blur", **SYMMETRIC, **o),
    "fused_dilated": lambda **o: FusedInvertedBottleneck(16, 32, dilation_rate=2, shortcut=False, **o),
    "fused_group": lambda **o: FusedInvertedBottleneck(16, 32, normalization="group", **o),
    "universal_same_start": lambda **o: scaled(24, 32, 5, 0, 2, **SAME, **o),
    "universal_same_middle": lambda **o: UniversalInvertedBottleneck(24, 32, 3, 3, 2, **SAME, **o),
    "universal_same_end": lambda **o: scaled(24, 32, 0, 0, 2, end_kernel_size=5, **SAME, **o),
    "universal_average": lambda **o: scaled(24, 32, 3, 3, 2, antialias="average", **SYMMETRIC, **o),
    "universal_blur": lambda **o: scaled(24, 32, 5, 0, 2, antialias="blur", **SYMMETRIC, **o),
    "universal_dilated": lambda **o: scaled(16, 32, 5, 3, end_kernel_size=3, dilation_rate=2, activation="gelu", **o),
    "universal_feed_forward": lambda **o: scaled(16, 32, 0, 0, **o),
    "universal_group": lambda **o: scaled(16, 32, 3, 3, normalization="group", **o),
    "universal_layer": lambda **o: scaled(24, 32, 3, 3, 2, normalization="layer", **SYMMETRIC, **o),
    "attention_same": lambda **o: attention(16, *SIZES, kv_kernel_size=5, **SAME, **o),
    "attention_symmetric": lambda **o: attention(24, *SIZES, kv_kernel_size=5, **SYMMETRIC, **o),
    "attention_dilated": lambda **o: attention(16, *SIZES, kv_kernel_size=3, dilation_rate=2, **SYMMETRIC, **o),
    "attention_group": lambda **o: attention(16, *SIZES, kv_kernel_size=3, normalization="group", **SYMMETRIC, **o),
    "attention_layer": lambda **o: attention(16, *SIZES, kv_kernel_size=3, normalization="layer", **SYMMETRIC, **o),
    "heads_layer": lambda **o: MobileAttention(
        24, 2, 8, multi_query=False, normalization="layer", layer_scale=1e-5, **o
    ),
}


def scaled(*arguments, **options):
    """Return a universal bottleneck with timm's default layer scale."""
    return UniversalInvertedBottleneck(*arguments, layer_scale=1e-5, **options)


def attention(*arguments, **options):
    """Return multi-query attention with key and value at stride 2 and timm's default layer scale."""
    return MobileAttention(*arguments, kv_strides=2, layer_scale=1e-5, **options)


@pytest.fixture(scope="module")
def timm_outputs():
    with np.load(references.FOLDER / "blocks.npz") as file:
        return dict(file)


def seeded_state(name, timm_outputs):
    """Return the tensors of timm's block."""
    shapes = {key.partition(":")[2]: shape for key, shape in timm_outputs.items() if key.startswith(f"{name}:")}
    state = seeded.state_dict(shapes)
    if "blocks.0.0.attn.qkv.weight" in state:  # timm stores query, key and value of multi-head attention in one tensor
        joint = state.pop("blocks.0.0.attn.qkv.weight")
        for part, rows in zip(("query", "key", "value"), np.split(joint, 3), strict=True):
            state[f"blocks.0.0.attn.{part}.proj.weight"] = rows
        state["blocks.0.0.attn.output.proj.weight"] = state.pop("blocks.0.0.attn.proj.weight")
    return state


def check(name, model, size, data_format, timm_outputs, deviation):
    """Compare the output of the model for a seeded map with timm's output."""
    mobilenet_zoo.load_checkpoint(model, seeded_state(name, timm_outputs), layout="timm")
    image, expected = seeded.image(*size, 16), timm_outputs[name]
    if data_format == "channels_first":
        image, expected = (array.transpose(0, 3, 1, 2) for array in (image, expected))
    outputs = references.infer(model, image)
    assert outputs.shape == expected.shape
    deviation(name, data_format, outputs, expected, 1e-5)


def input_shape(data_format):
    """Return an input shape of unknown height and width, which attention must support."""
    return (None, None, 16) if data_format == "channels_last" else (16, None, None)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", ROWS)
def test_block_matches_timm(name, data_format, timm_outputs, deviation):
    architecture = Architecture(stem=None, stages=[[ROWS[name]]], head=None, layer_scale=1e-5, norm_epsilon=1e-5)
    model = create_mobilenetv4(
        architecture,
        input_shape=input_shape(data_format),
        include_top=False,
        padding="symmetric",
        data_format=data_format,
    )
    check(name, model, (12, 10), data_format, timm_outputs, deviation)


@pytest.mark.parametrize(
    ("name", "data_format"),
    # Each layer runs in one data format by default, in alternation; the other one is marked slow.
    [
        pytest.param(name, data_format, marks=[pytest.mark.slow] if (i + j) % 2 else [])
        for i, name in enumerate(LAYERS)
        for j, data_format in enumerate(["channels_last", "channels_first"])
    ],
)
def test_layer_matches_timm(name, data_format, timm_outputs, deviation):
    layer = LAYERS[name](norm_epsilon=1e-5, data_format=data_format, name="stage1_block1")
    inputs = keras.Input(input_shape(data_format))
    check(name, keras.Model(inputs, layer(inputs)), (9, 7), data_format, timm_outputs, deviation)


@pytest.mark.across
@pytest.mark.slow
def test_stored_outputs_match_the_installed_timm(timm_outputs):
    peers.timm()
    from tests.reference import make_blocks

    assert {*make_blocks.BLOCKS, *make_blocks.ODD_BLOCKS} == {*ROWS, *LAYERS}
    outputs = make_blocks.results()
    assert outputs.keys() == timm_outputs.keys()
    for name, value in outputs.items():
        scale = np.abs(timm_outputs[name]).max(initial=0)
        np.testing.assert_allclose(value, timm_outputs[name], rtol=1e-5, atol=1e-5 * scale, err_msg=name)
