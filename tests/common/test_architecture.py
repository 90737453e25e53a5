"""Architectures: scaling of their widths, and validation of their fields."""

import dataclasses

import pytest

import mobilenet_v1
import mobilenet_v2
import mobilenet_v3
import mobilenet_v4
from mobilenet_common.architecture import (
    Architecture,
    Attention,
    ChannelAttend,
    Conv,
    Dense,
    Excite,
    Fused,
    Head,
    Inverted,
    Separable,
    Universal,
)
from mobilenet_common.widths import channels_per_group, make_divisible, truncate
from mobilenet_v4 import compact_architecture

pytestmark = pytest.mark.across

VARIANTS = {
    f"{module.__name__}-{name}": architecture
    for module in (mobilenet_v1, mobilenet_v2, mobilenet_v3, mobilenet_v4)
    for name, architecture in module.VARIANTS.items()
}


def tiny(**fields):
    """Return an architecture with one stage of one row, and the given fields."""
    return Architecture(**{"stages": ((Conv(8),),), **fields})


def filters(architecture):
    """Return the filters of all blocks as a list."""
    return [row.filters for _, row in architecture.blocks()]


# --- rounding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "channels, expected",
    [(1, 8), (8, 8), (11.9, 16), (12, 16), (16 * 0.75, 16), (24 * 0.75, 24), (32 * 1.4, 48), (18, 24), (20, 24)],
)
def test_make_divisible_rounds_to_nearest_multiple_of_at_least_90_percent(channels, expected):
    assert make_divisible(channels) == expected


@pytest.mark.parametrize("divisor", [1, 4, 8, 24])
def test_make_divisible_accepts_any_divisor(divisor):
    for channels in range(1, 300):
        rounded = make_divisible(channels, divisor)
        assert rounded % divisor == 0
        assert rounded >= 0.9 * channels
        assert abs(rounded - channels) < divisor or rounded == divisor


@pytest.mark.parametrize("channels, expected", [(32 * 0.35, 11), (64 * 0.999, 63), (0.4, 1), (40.0, 40)])
def test_truncate_rounds_down_to_at_least_one_channel(channels, expected):
    assert truncate(channels) == expected


@pytest.mark.parametrize("channels, size", [(64, 8), (24, 8), (12, 6), (10, 5), (7, 7), (11, 1), (4, 4)])
def test_group_norm_has_8_channels_per_group_or_the_largest_divisor(channels, size):
    assert channels_per_group(channels) == size


# --- widths of the generations ------------------------------------------------------------------------------------


def test_v1_truncates_every_width():
    scaled = mobilenet_v1.VARIANTS["1.0"].scaled(0.3)
    assert scaled.stem.filters == 9  # int(32 * 0.3), not 16
    assert filters(scaled)[:6] == [19, 38, 38, 76, 76, 153]
    assert filters(scaled)[-1] == 307


def test_v1_h_scales_the_convolution_of_its_head():
    assert mobilenet_v1.VARIANTS["1.0h"].scaled(0.3).head.conv.filters == 307


def test_v2_rounds_to_multiples_of_8():
    scaled = mobilenet_v2.VARIANTS["1.0"].scaled(0.35)
    assert scaled.stem.filters == 16
    assert [stage[0].filters for stage in scaled.stages] == [8, 8, 16, 24, 32, 56, 112]
    # Expanded widths are six times the rounded input width, not six times the width in the table.
    assert [stage[0].expanded for stage in scaled.stages] == [None, 48, 48, 96, 144, 192, 336]


@pytest.mark.parametrize("width, expected", [(0.35, 1280), (0.75, 1280), (1.0, 1280), (1.3, 1664), (1.4, 1792)])
def test_v2_head_widens_only_above_width_1(width, expected):
    assert mobilenet_v2.VARIANTS["1.0"].scaled(width).head.conv.filters == expected


@pytest.mark.parametrize("width", [0.5, 0.75, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("variant", ["large", "small", "large_rw", "small_minimalistic"])
def test_v3_stem_stays_16_and_last_convolution_is_6_times_its_input(variant, width):
    scaled = mobilenet_v3.VARIANTS[variant].scaled(width)
    assert scaled.stem.filters == 16
    *_, (_, previous), (_, last) = scaled.blocks()
    assert last.filters == 6 * previous.filters
    assert previous.filters != mobilenet_v3.VARIANTS[variant].blocks()[-2][1].filters or width == 1.0


@pytest.mark.parametrize("variant, table", [("large", 1280), ("small", 1024), ("small_minimalistic", 1024)])
@pytest.mark.parametrize("width, factor", [(0.5, 1), (0.75, 1), (1.0, 1), (1.25, 1.25), (2.0, 2)])
def test_v3_head_widens_only_above_width_1(variant, table, width, factor):
    assert mobilenet_v3.VARIANTS[variant].scaled(width).head.dense.filters == table * factor


@pytest.mark.parametrize("variant, stem", [("conv_small", 32), ("conv_large", 24), ("hybrid_medium", 32)])
@pytest.mark.parametrize("width, factor", [(0.35, 1), (0.75, 1), (1.0, 1), (1.5, 1.5), (2.0, 2)])
def test_v4_stem_widens_only_above_width_1_and_head_stays_1280(variant, stem, width, factor):
    scaled = mobilenet_v4.VARIANTS[variant].scaled(width)
    assert scaled.stem.filters == make_divisible(stem * factor)
    assert scaled.head.dense.filters == 1280
    assert scaled.blocks()[-1][1].filters == make_divisible(960 * width)


@pytest.mark.parametrize("width", [0.25, 0.75, 2.0])
def test_v4_attention_keeps_number_and_size_of_heads(width):
    before = [row for _, row in mobilenet_v4.VARIANTS["hybrid_large"].blocks() if isinstance(row, Attention)]
    after = [row for _, row in mobilenet_v4.VARIANTS["hybrid_large"].scaled(width).blocks() if type(row) is Attention]
    assert [(row.heads, row.key_size) for row in after] == [(row.heads, row.key_size) for row in before]
    assert [row.filters for row in after] == [make_divisible(row.filters * width) for row in before]


@pytest.mark.parametrize(
    "variant, multiple",
    [("compact_nano", 8), ("compact_small", 24), ("compact_medium", 8), ("compact_large", 56)],
)
@pytest.mark.parametrize("width", [0.1, 0.4, 0.9, 1.7])
def test_compact_base_is_rounded_to_common_multiple_of_8_and_heads(variant, multiple, width):
    table, scaled = mobilenet_v4.VARIANTS[variant], mobilenet_v4.VARIANTS[variant].scaled(width)
    base = make_divisible(table.stem.filters * width, multiple)
    assert scaled.stem.filters == base
    assert {row.filters for _, row in scaled.blocks() if row.filters} == {base}
    assert scaled.head.dense.filters == table.head.dense.filters
    (heads,) = {row.heads for _, row in scaled.blocks() if isinstance(row, ChannelAttend)}
    assert base % heads == 0


def test_compact_squeezed_widths_keep_their_ratio_to_base():
    table, scaled = mobilenet_v4.VARIANTS["compact_large"], mobilenet_v4.VARIANTS["compact_large"].scaled(0.5)
    assert {row.squeeze for _, row in table.blocks() if isinstance(row, Excite)} == {56}
    assert {row.squeeze for _, row in scaled.blocks() if isinstance(row, Excite)} == {28}
    assert {row.expanded for _, row in scaled.blocks() if getattr(row, "expanded", None)} == {256}


@pytest.mark.parametrize(
    "variants, name, stem, widths",
    [
        (mobilenet_v2.VARIANTS, "1.1d", 32, [16, 24, 32, 72, 104, 176, 352]),
        (mobilenet_v2.VARIANTS, "1.2d", 32, [24, 32, 40, 80, 112, 192, 384]),
        (mobilenet_v3.VARIANTS, "large_1.5d", 24, [24, 40, 64, 120, 168, 240, 1440]),
    ],
)
def test_deeper_variants_have_their_own_widths(variants, name, stem, widths):
    architecture = variants[name]
    assert architecture.width == 1
    scaled = architecture.scaled()
    assert scaled.stem.filters == stem
    assert [stage[-1].filters for stage in scaled.stages] == widths


def test_multiplier_multiplies_the_width_of_the_variant():
    table = mobilenet_v1.VARIANTS["1.0"]
    assert mobilenet_v1.VARIANTS["0.5"].scaled(0.5) == table.scaled(0.25)
    assert mobilenet_v2.VARIANTS["1.4"].scaled(0.5) == mobilenet_v2.VARIANTS["1.0"].scaled(0.7)
    assert mobilenet_v1.VARIANTS["0.5"].scaled() == table.scaled(0.5)


@pytest.mark.parametrize("name", VARIANTS)
def test_scaling_by_1_changes_nothing(name):
    architecture = VARIANTS[name]
    once = architecture.scaled()
    assert once.width == 1
    assert once.scaled() == once == once.scaled(1)
    if architecture.width == 1:
        assert once == architecture


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("width", [0.05, 0.6, 1.9, 4])
def test_scaling_changes_only_widths(name, width):
    before, after = VARIANTS[name], VARIANTS[name].scaled(width)
    widths = ("filters", "expanded", "squeeze")
    assert dataclasses.replace(after, width=before.width, stem=before.stem, stages=before.stages, head=before.head) == (
        before
    )
    for (block, old), (scaled_block, new) in zip(before.blocks(), after.blocks(), strict=True):
        assert block == scaled_block
        old_widths = {field.name: getattr(old, field.name) for field in dataclasses.fields(old) if field.name in widths}
        assert dataclasses.replace(new, **old_widths) == old


@pytest.mark.parametrize("scaling, expected", [("scale", 24), ("grow", 48), ("fixed", 48)])
def test_convolution_scales_below_width_1(scaling, expected):
    assert tiny(stem=Conv(48, scaling=scaling)).scaled(0.5).stem.filters == expected


@pytest.mark.parametrize("scaling, expected", [("scale", 96), ("grow", 96), ("fixed", 48)])
def test_convolution_scales_above_width_1(scaling, expected):
    assert tiny(stem=Conv(48, scaling=scaling)).scaled(2).stem.filters == expected


def test_follow_scaling_keeps_the_ratio_to_the_rounded_input():
    scaled = tiny(stages=((Conv(24), Conv(48, scaling="follow")),)).scaled(0.75)
    assert filters(scaled) == [24, 48]  # 24 * 0.75 = 18 is rounded up to 24, so 48 * 0.75 = 36 becomes 48, not 40


def test_architecture_without_stem_and_head_scales():
    scaled = tiny(stem=None, stages=((Excite(6), Inverted(3, 64, 32)),), head=None).scaled(0.5)
    assert scaled.stem is None and scaled.head is None
    assert scaled.stages == ((Excite(6), Inverted(3, 32, 16)),)


@pytest.mark.parametrize("width", [0, -1, 4.01, float("nan"), float("inf"), "0.5", None, True])
def test_multiplier_outside_its_range_is_rejected(width):
    with pytest.raises(ValueError, match=r"width_multiplier=.*it must be a number in \(0, 4\]"):
        mobilenet_v1.VARIANTS["1.0"].scaled(width)


# --- validation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Conv(0), r"filters=0 .* at least 1"),
        (lambda: Conv(8.0), r"filters=8\.0 .* integer"),
        (lambda: Conv(True), r"filters=True"),
        (lambda: Conv(8, kernel=2), r"kernel=2 .* odd"),
        (lambda: Conv(8, kernel=0), r"kernel=0 .* odd"),
        (lambda: Conv(8, stride=3), r"stride=3 .*Allowed: 1, 2"),
        (lambda: Conv(8, scaling="shrink"), r"scaling='shrink' .*'grow'"),
        (lambda: Separable(8, kernel=4), r"kernel=4"),
        (lambda: Separable(-1), r"filters=-1"),
        (lambda: Inverted(3, 0, 8), r"expanded=0"),
        (lambda: Inverted(6, 8, 8), r"kernel=6"),
        (lambda: Inverted(3, 8, 8, squeeze=-0.1), r"squeeze=-0\.1"),
        (lambda: Inverted(3, 8, 8, squeeze=16), r"squeeze=16 .*\[0, 1\]"),
        (lambda: Inverted(3, 8, 8, shortcut="yes"), r"shortcut='yes' .* true or false"),
        (lambda: Fused(3, None, 8), r"expanded=None"),
        (lambda: Fused(4, 8, 8), r"kernel=4"),
        (lambda: Fused(3, 8, 8, linear=1), r"linear=1"),
        (lambda: Universal(2, 3, 8, 8), r"start=2 .* odd"),
        (lambda: Universal(0, 4, 8, 8), r"middle=4 .* odd"),
        (lambda: Universal(0, 3, 8, 8, end=6), r"end=6 .* odd"),
        (lambda: Universal(0, 0, 8, 8, stride=2), r"stride=2 needs a depthwise convolution"),
        (lambda: Universal(0, 3, 8, 8, layer_scale=0), r"layer_scale=0"),
        (lambda: Attention(8, 0, 4), r"heads=0"),
        (lambda: Attention(8, 2, 0), r"key_size=0"),
        (lambda: Attention(8, 2, 4, value_size=0), r"value_size=0"),
        (lambda: Attention(8, 2, 4, kv_kernel=2), r"kv_kernel=2 .* odd"),
        (lambda: Attention(8, 2, 4, kv_stride=2), r"kv_stride=2 needs kv_kernel"),
        (lambda: Attention(8, 2, 4, kv_kernel=3, kv_stride=3), r"kv_stride=3"),
        (lambda: Attention(8, 2, 4, query_stride=(1, 2, 3)), r"query_stride=\(1, 2, 3\) .* pair"),
        (lambda: Attention(8, 2, 4, query_stride=0), r"query_stride=0"),
        (lambda: Attention(8, 2, 4, attention_dropout=1.0), r"attention_dropout=1\.0 .*\[0, 1\)"),
        (lambda: Attention(8, 2, 4, projection_dropout=-1), r"projection_dropout=-1"),
        (lambda: Attention(8, 2, 4, multi_query=None), r"multi_query=None"),
        (lambda: Excite(0), r"squeeze=0"),
        (lambda: Excite(0.25), r"squeeze=0\.25 .* integer"),
        (lambda: ChannelAttend(0), r"heads=0"),
        (lambda: ChannelAttend(2, stride=4), r"stride=4"),
        (lambda: Dense(0), r"filters=0"),
        (lambda: Dense(8, use_bias="no"), r"use_bias='no'"),
        (lambda: Dense(8, scaling="wide"), r"scaling='wide'"),
    ],
)
def test_invalid_row_reports_field_and_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"name": ""}, r"name=''"),
        ({"stem": Separable(8)}, r"stem=Separable.* must be a Conv or None"),
        ({"head": Conv(8)}, r"head=Conv.* must be a Head or None"),
        ({"stages": ()}, r"stages .* empty"),
        ({"stages": ((Conv(8),), ())}, r"stages .* empty stage"),
        ({"stages": ((Conv(8), "conv"),)}, r"stage1_block2='conv' .* must be a row"),
        ({"stages": ((Dense(8),),)}, r"stage1_block1=Dense.* must be a row"),
        ({"width": 0}, r"width=0"),
        ({"width": float("inf")}, r"width=inf"),
        ({"rounding": "up"}, r"rounding='up' .*'truncate'"),
        ({"divisor": 0}, r"divisor=0"),
        ({"squeeze_divisor": 0}, r"squeeze_divisor=0"),
        ({"activation": "rleu"}, r"activation='rleu'"),
        ({"squeeze_activation": "swishh"}, r"squeeze_activation='swishh'"),
        ({"normalization": "instance"}, r"normalization='instance' .*'group'"),
        ({"norm_epsilon": 0}, r"norm_epsilon=0"),
        ({"padding": "valid"}, r"padding='valid' .*'symmetric'"),
        ({"dropout_rate": 1}, r"dropout_rate=1 "),
        ({"layer_scale": -1}, r"layer_scale=-1"),
        ({"antialias": "median"}, r"antialias='median' .*'blur'"),
        ({"minimum_size": 0}, r"minimum_size=0"),
    ],
)
def test_invalid_architecture_reports_field_and_value(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)


@pytest.mark.parametrize("parts", [{"conv": Dense(8)}, {"dense": Conv(8)}, {"conv": 8}])
def test_head_rejects_parts_of_the_wrong_type(parts):
    with pytest.raises(ValueError, match=f"head {next(iter(parts))}="):
        Head(**parts)


def test_rows_normalize_equivalent_values():
    assert Universal(None, 3, 8, 8).start == 0
    assert Attention(8, 2, 4, query_stride=[2, 1]).query_stride == (2, 1)
    assert Attention(8, 2, 4, query_stride=(2, 2)).query_stride == 2
    assert tiny(stages=[[Conv(8)], [Conv(8)]]).stages == ((Conv(8),), (Conv(8),))


def test_squeeze_and_excitation_accepts_one_squeezed_channel():
    assert Excite(1).squeeze == 1


def test_architectures_and_rows_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Conv(8).filters = 16
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny().width = 2


def test_blocks_are_named_after_stage_and_row():
    architecture = tiny(stages=((Conv(8), Conv(16)), (Conv(24),)))
    assert architecture.blocks() == [
        ("stage1_block1", Conv(8)),
        ("stage1_block2", Conv(16)),
        ("stage2_block1", Conv(24)),
    ]


@pytest.mark.parametrize("name", VARIANTS)
def test_with_activation_replaces_all_activations_except_gates(name):
    changed = VARIANTS[name].with_activation("tanh")
    rows = [row for _, row in changed.blocks()]
    rows += [row for row in (changed.stem, changed.head.conv, changed.head.dense) if row]
    activations = {getattr(row, "activation", None) for row in rows} - {None}
    assert activations <= {"tanh"}
    assert changed.activation == "tanh"
    assert changed.squeeze_activation == ("tanh" if VARIANTS[name].squeeze_activation else None)
    assert {row.gate for row in rows if isinstance(row, Excite)} <= {"sigmoid"}


def test_with_normalization_replaces_only_existing_normalization():
    changed = mobilenet_v4.VARIANTS["compact_nano"].with_normalization("layer")
    assert changed.normalization == "layer"
    assert changed.head.dense.normalization == "default"  # replaces batch normalization
    assert mobilenet_v3.VARIANTS["large"].with_normalization("layer").head.dense.normalization is None


# --- columns of the compact family --------------------------------------------------------------------------------


def test_compact_columns_become_rows_in_order():
    architecture = compact_architecture(16, 40, 4, 2, 1, 2, 1, 2, 64, dropout_rate=0.1, downsampling=True, name="mine")
    kinds = [[type(row).__name__ for row in stage] for stage in architecture.stages]
    assert kinds == [
        ["Fused"],
        ["Universal", "Universal"],
        ["Universal", "Universal"],
        ["Excite", "Universal"],
        ["Excite", "ChannelAttend"],
        ["Excite", "ChannelAttend"],
    ]
    assert architecture.name == "mine"
    assert architecture.dropout_rate == 0.1
    assert architecture.stem == Conv(16)
    assert architecture.head.dense.filters == 64
    assert architecture.stages[0][0] == Fused(3, 40, 16, stride=2, shortcut=False, linear=False)
    assert [(row.start, row.middle) for row in architecture.stages[1]] == [(5, 0), (5, 3)]
    assert architecture.stages[3][0].squeeze == 4
    assert architecture.stages[4][1] == ChannelAttend(2, stride=2)
    assert compact_architecture(16, 40, 4, 2, 1, 2, 1, 2).stages[4][1] == ChannelAttend(2, stride=1)


@pytest.mark.parametrize("base, heads", [(24, 5), (36, 4), (20, 2)])
def test_compact_base_must_be_a_multiple_of_8_and_heads(base, heads):
    with pytest.raises(ValueError, match=f"base={base} .*multiple of 8 and of heads={heads}"):
        compact_architecture(base, 64, 6, heads, 2, 2, 3, 1)
