"""`profile`: parameters, MACs and memory, compared with numbers that were computed by hand."""

import json

import keras
import pytest

import mobilenet_zoo
from mobilenet_common.architecture import (
    Architecture,
    Attention,
    ChannelAttend,
    Conv,
    Fused,
    Head,
    Inverted,
    Separable,
    Universal,
)
from mobilenet_common.layers import ConvNormActivation
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4

pytestmark = pytest.mark.across


def profile_rows(*rows, input_shape=(8, 8, 4), **options):
    """Return `{name of a block: row}` of a body that takes a feature map of 8×8×4."""
    architecture = Architecture(stem=None, stages=(rows,), head=None, **options)
    model = create_mobilenetv4(architecture, input_shape=input_shape, include_top=False)
    return {row.name: row for row in mobilenet_zoo.profile(model).rows}


def costs(row, **options):
    """Return `(parameters, statistics, macs)` of a block that takes a feature map of 8×8×4."""
    block = profile_rows(row, **options)["stage1_block1"]
    return block.parameters, block.statistics, block.macs


@pytest.mark.parametrize(
    "row, parameters, statistics, macs",
    [
        # kernel 3·3·4·6, scale and offset of 6 channels; 4×4 positions
        (Conv(6, 3, 2), 216 + 12, 12, 16 * 216),
        # depthwise 9·4 at 8×8 positions, pointwise 4·6
        (Separable(6), 36 + 8 + 24 + 12, 8 + 12, 64 * (36 + 24)),
        # expansion 4·16 at 8×8, depthwise 25·16 and projection 16·4 at 4×4
        (Inverted(5, 16, 4, stride=2), 64 + 32 + 400 + 32 + 64 + 8, 32 + 32 + 8, 64 * 64 + 16 * (400 + 64)),
        # the squeezed width is 16·0.25 = 4, rounded to 8; squeeze-and-excitation has biases and one position
        (Inverted(3, 16, 4, 0.25), 64 + 32 + 144 + 32 + 128 + 8 + 128 + 16 + 64 + 8, 72, 64 * (64 + 144 + 64) + 256),
        (Fused(3, 16, 4), 576 + 32 + 64 + 8, 32 + 8, 64 * (576 + 64)),
        # the middle convolution has the stride: 9·4 and 4·16 at 8×8, 25·16 and 16·6 at 4×4
        (Universal(3, 5, 16, 6, 2), 36 + 8 + 64 + 32 + 400 + 32 + 96 + 12, 84, 64 * (36 + 64) + 16 * (400 + 96)),
        # query 4·10, key and value 4·5 each, output 10·4; matrix products of attention aren't counted
        (Attention(4, 2, 5), 8 + 40 + 20 + 20 + 40, 8, 64 * (40 + 20 + 20 + 40)),
        # two depthwise convolutions reduce key and value to 4×4
        (
            Attention(4, 2, 5, kv_kernel=3, kv_stride=2),
            8 + 40 + 2 * (36 + 8 + 20) + 40,
            8 + 2 * 8,
            64 * (40 + 40) + 16 * 2 * (36 + 20),
        ),
        # the query is computed from 4×4 means, which are normalized again
        (Attention(4, 2, 5, query_stride=2), 8 + 8 + 40 + 20 + 20 + 40, 16, 16 * 40 + 64 * (20 + 20 + 40)),
    ],
    ids=["conv", "separable", "inverted", "squeeze", "fused", "universal", "attention", "kv_stride", "query_stride"],
)
def test_parameters_and_macs(row, parameters, statistics, macs):
    assert costs(row) == (parameters, statistics, macs)


def test_group_norm_has_no_statistics_and_layer_scale_has_parameters():
    assert costs(Universal(0, 0, 16, 4), normalization="group", layer_scale=0.1) == (64 + 32 + 64 + 8 + 4, 0, 64 * 128)


def test_antialiasing_counts_stride_1_without_the_filter():
    assert costs(Conv(6, 3, 2), antialias="average") == (216 + 12, 12, 64 * 216)
    assert costs(Conv(6, 3, 2), antialias="blur") == (216 + 12, 12, 64 * 216)


def test_classifier_costs():
    model = create_mobilenetv4(Architecture(stages=((Conv(6, 1),),), head=Head()), 5, (32, 32, 3))
    rows = {row.name: row for row in mobilenet_zoo.profile(model).rows}
    assert (rows["classifier"].parameters, rows["classifier"].macs) == (6 * 5 + 5, 6 * 5)
    assert rows["pool"].macs == rows["predictions"].macs == 0
    assert rows["classifier"].kind == "Dense"


def test_totals_are_sums_of_rows():
    profile = mobilenet_zoo.profile(create_mobilenetv3("small", 10, (64, 48, 3)))
    model = create_mobilenetv3("small", 10, (64, 48, 3))
    assert [row.name for row in profile.rows] == [layer.name for layer in model.layers[1:]]
    assert [row.output_shape for row in profile.rows] == [tuple(layer.output.shape[1:]) for layer in model.layers[1:]]
    assert profile.parameters == sum(row.parameters for row in profile.rows)
    assert profile.parameters + profile.statistics == model.count_params()
    assert profile.macs == sum(row.macs for row in profile.rows)
    assert profile.peak_activation_bytes == max(row.peak_activation_bytes for row in profile.rows)


def test_peak_memory_of_two_layers():
    # 4 bytes per value: the image of 32·32·3 and the stem's output of 16·16·8; then the latter and 16·16·24.
    architecture = Architecture(stem=Conv(8, stride=2), stages=((Conv(24, 1),),), head=None)
    profile = mobilenet_zoo.profile(create_mobilenetv4(architecture, input_shape=(32, 32, 3), include_top=False))
    assert [row.peak_activation_bytes for row in profile.rows] == [4 * (3072 + 2048), 4 * (2048 + 6144)]
    assert profile.peak_activation_bytes == 4 * 8192


def test_peak_memory_includes_the_input_of_a_shortcut():
    # Input 8·8·4 = 256. Expansion: 256 + 1024. Depthwise: 1024 + 1024 plus the input, which is the peak.
    # Projection: 1024 + 256 plus the input. Sum: 256 + 256 + 256.
    assert profile_rows(Inverted(3, 16, 4))["stage1_block1"].peak_activation_bytes == 4 * (256 + 1024 + 1024)
    assert profile_rows(Inverted(3, 16, 4, shortcut=False))["stage1_block1"].peak_activation_bytes == 4 * (1024 + 1024)


def test_costs_of_strided_channel_attention():
    # Input 8·8·4 = 256, output 4·4·4 = 64. Three 1×1 convolutions; three 3×3 with stride 2, two of which share weights.
    assert costs(ChannelAttend(2, stride=2)) == (3 * (16 + 4) + 2 * (144 + 4), 0, 64 * 3 * 16 + 16 * 3 * 144)
    # The peak is at the key's 3×3 convolution: it reads 256 and writes 64, plus the input, which the value needs
    # later, and the query.
    assert profile_rows(ChannelAttend(2, stride=2))["stage1_block1"].peak_activation_bytes == 4 * (256 + 64 + 256 + 64)


def test_costs_of_channel_attention():
    assert costs(ChannelAttend(2)) == (3 * (16 + 4), 0, 64 * 3 * 16)
    # Query, key, value and output: 4 · 256. Attention weights: 2 heads of 2×2.
    assert profile_rows(ChannelAttend(2))["stage1_block1"].peak_activation_bytes == 4 * (4 * 256 + 8)


def test_peak_memory_includes_pyramid_levels():
    architecture = Architecture(stem=Conv(8, stride=2), stages=((Conv(8, 1, 2),), (Conv(8, 1, 2),)), head=None)
    options = {"input_shape": (32, 32, 3), "include_top": False}
    single = mobilenet_zoo.profile(create_mobilenetv4(architecture, **options))
    pyramid = mobilenet_zoo.profile(create_mobilenetv4(architecture, pyramid_levels=(1, 2, 3), **options))
    last = [profile.rows[-1].peak_activation_bytes for profile in (single, pyramid)]
    assert last == [4 * (512 + 128), 4 * (512 + 128 + 2048)]


def test_half_precision_takes_half_the_memory():
    full, half = (
        mobilenet_zoo.profile(create_mobilenetv3("small", 10, (32, 32, 3), 0.1, dtype=dtype))
        for dtype in ("float32", "mixed_bfloat16")
    )
    assert half.rows[3].peak_activation_bytes * 2 == full.rows[3].peak_activation_bytes
    assert half.macs == full.macs and half.parameters == full.parameters


@pytest.mark.parametrize("variant", ["conv_small", "hybrid_medium", "compact_nano"])
def test_data_formats_have_equal_costs(variant):
    last = mobilenet_zoo.profile(create_mobilenetv4(variant, 4, (48, 33, 3), 0.1))
    first = mobilenet_zoo.profile(create_mobilenetv4(variant, 4, (3, 48, 33), 0.1, data_format="channels_first"))
    for first_row, last_row in zip(first.rows, last.rows, strict=True):
        assert (first_row.macs, first_row.parameters, first_row.peak_activation_bytes) == (
            last_row.macs,
            last_row.parameters,
            last_row.peak_activation_bytes,
        )


def test_as_dict_is_serializable_and_complete():
    profile = mobilenet_zoo.profile(create_mobilenetv3("small", 10, (32, 32, 3), 0.1))
    record = profile.as_dict()
    assert json.loads(json.dumps(record)) == record
    assert record["model"] == "mobilenetv3_small_010"
    assert record["input_shape"] == [32, 32, 3]
    assert (record["parameters"], record["macs"]) == (profile.parameters, profile.macs)
    assert len(record["rows"]) == len(profile.rows)
    assert record["rows"][0] == {
        "name": "stem",
        "kind": "ConvNormActivation",
        "output_shape": [16, 16, 16],
        "parameters": 3 * 9 * 16 + 32,
        "statistics": 32,
        "macs": 256 * 27 * 16,
        "peak_activation_bytes": 4 * (3072 + 4096),
    }


def test_table_has_one_line_per_layer_and_totals():
    profile = mobilenet_zoo.profile(create_mobilenetv3("small", 10, (32, 32, 3), 0.1))
    title, header, *lines = str(profile).splitlines()
    assert title == "mobilenetv3_small_010 at 32×32×3"
    assert header.split() == ["layer", "kind", "output", "parameters", "MACs", "peak", "memory"]
    assert lines[1].split()[:4] == ["stem", "ConvNormActivation", "16×16×16", f"{3 * 9 * 16 + 32:,}"]
    assert [line.split()[0] for line in lines[1:-2]] == [row.name for row in profile.rows]
    assert lines[-1].split()[:3] == ["total", f"{profile.parameters:,}", f"{profile.macs:,}"]


def test_model_with_free_height_and_width_needs_input_shape():
    free = create_mobilenetv3("small", 10, (None, None, 3), 0.1)
    fixed = create_mobilenetv3("small", 10, (64, 48, 3), 0.1)
    with pytest.raises(ValueError, match=r"input_shape is required.*Pass a shape without None"):
        mobilenet_zoo.profile(free)
    assert mobilenet_zoo.profile(free, (64, 48, 3)).rows == mobilenet_zoo.profile(fixed).rows
    assert mobilenet_zoo.profile(fixed, (64, 48, 3)) == mobilenet_zoo.profile(fixed)


@pytest.mark.parametrize("shape", [(32, 32, 1), (48, 32, 3), (32, 32), (32, None, 3), (0, 32, 3), (1, 32, 32, 3)])
def test_wrong_input_shape_raises(shape):
    model = create_mobilenetv3("small", 10, (32, None, 3), 0.1)
    with pytest.raises(ValueError, match=r"input_shape=\(.*\) does not fit mobilenetv3_small_010, which takes"):
        mobilenet_zoo.profile(model, shape)


def test_layers_of_keras_are_counted():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(image)
    x = keras.layers.DepthwiseConv2D(3, 2, padding="same")(x)
    x = ConvNormActivation(6, 1, name="ours")(x)
    x = keras.layers.Dense(2)(keras.layers.Flatten()(x))
    profile = mobilenet_zoo.profile(keras.Model(image, x))
    assert [row.macs for row in profile.rows] == [64 * 27 * 4, 16 * 9 * 4, 16 * 4 * 6, 0, 96 * 2]


def test_model_with_two_inputs_raises():
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    model = keras.Model([first, second], keras.layers.Add()([first, second]), name="sum")
    with pytest.raises(ValueError, match="sum has 2 inputs"):
        mobilenet_zoo.profile(model)
