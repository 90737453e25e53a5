"""`list_models` and `create_model`: the names, and the model that each name builds."""

import json
from pathlib import Path

import pytest

import mobilenet_zoo
from mobilenet_common.layers import ConvNormActivation

pytestmark = pytest.mark.across

TIMM = json.loads((Path(__file__).parents[1] / "reference" / "architectures.json").read_text())

NOT_IN_TIMM = [
    "mobilenetv1_025",
    "mobilenetv1_050",
    "mobilenetv1_075",
    "mobilenetv2_130",
    "mobilenetv3_large_minimal_100",
    "mobilenetv3_small_minimal_100",
    "mobilenetv4_compact_hybrid_large",
    "mobilenetv4_compact_large",
    "mobilenetv4_compact_medium",
    "mobilenetv4_compact_nano",
    "mobilenetv4_compact_small",
]

TINY = {"width_multiplier": 0.1, "input_shape": (32, 32, 3)}


def padding_and_epsilon(model):
    """Return the padding and the epsilon that all normalized layers of a model share."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, ConvNormActivation)]
    layers = [layer for layer in layers if layer.normalization]
    paddings, epsilons = {layer.padding for layer in layers}, {layer.norm_epsilon for layer in layers}
    assert len(paddings) == len(epsilons) == 1
    return paddings.pop(), epsilons.pop()


def test_list_models_returns_all_names():
    assert mobilenet_zoo.list_models() == sorted([*TIMM, *NOT_IN_TIMM])


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("mobilenetv1_1??", ["mobilenetv1_100", "mobilenetv1_125"]),
        ("*rw", ["mobilenetv3_rw"]),
        ("*small_0[35]*", ["mobilenetv3_small_050", "mobilenetv4_conv_small_035", "mobilenetv4_conv_small_050"]),
        ("mobilenetv2_100", ["mobilenetv2_100"]),
        ("mobilenetv5*", []),
        ("V4_Conv_Small", ["mobilenetv4_conv_small", "mobilenetv4_conv_small_035", "mobilenetv4_conv_small_050"]),
        ("MOBILENETV1_1?5", ["mobilenetv1_125"]),
    ],
)
def test_pattern_has_shell_wildcards(pattern, expected):
    assert mobilenet_zoo.list_models(pattern) == expected


def test_pattern_of_wrong_type_raises():
    with pytest.raises(ValueError, match="pattern=3 is not allowed"):
        mobilenet_zoo.list_models(3)


def test_pattern_selects_a_generation():
    assert mobilenet_zoo.list_models("*v4*") == [name for name in mobilenet_zoo.list_models() if "v4" in name]
    assert len(mobilenet_zoo.list_models("tf_*")) == 6


@pytest.mark.parametrize("name", TIMM)
def test_parameters_macs_and_features_equal_timm(name):
    model = mobilenet_zoo.create_model(name)
    assert model.name == name.removeprefix("tf_")
    profile = mobilenet_zoo.profile(model)
    assert profile.parameters == TIMM[name]["trainable_params"]
    assert profile.macs == TIMM[name]["macs_224"]
    rows = {row.name: row for row in profile.rows}
    before_pool = profile.rows[[row.name for row in profile.rows].index("pool") - 1]
    assert list(before_pool.output_shape) == TIMM[name]["features_224"]
    assert rows["predictions"].output_shape == (1000,)


@pytest.mark.parametrize("name", TIMM)
def test_pyramid_levels_equal_timm(name):
    model = mobilenet_zoo.create_model(name, include_top=False, pyramid_levels=(1, 2, 3, 4, 5))
    shapes = [model.output[f"P{level}"].shape for level in range(1, 6)]
    stages = [{"channels": shape[-1], "stride": 224 // shape[1]} for shape in shapes]
    assert stages == TIMM[name]["stages"]


@pytest.mark.parametrize("name", [*TIMM, *NOT_IN_TIMM])
def test_name_sets_padding_and_epsilon(name):
    if name in NOT_IN_TIMM:
        expected = ("symmetric", 1e-5) if "compact" in name else ("same", 1e-3)
    elif name.startswith("tf_"):
        expected = ("same", 1e-3)
    else:
        expected = ("symmetric", 1e-3 if name == "mobilenetv3_rw" else 1e-5)
    assert padding_and_epsilon(mobilenet_zoo.create_model(name, **TINY)) == expected


def test_arguments_override_the_settings_of_a_name():
    model = mobilenet_zoo.create_model("mobilenetv2_100", padding="same", norm_epsilon=0.01, num_classes=7, **TINY)
    assert padding_and_epsilon(model) == ("same", 0.01)
    assert model.output_shape == (None, 7)


def test_tagged_name_builds_a_model_without_weights():
    options = {"input_shape": (32, 32, 3), "weights": None}
    tagged = mobilenet_zoo.create_model("mobilenetv4_conv_small_050.e3000_r224_in1k", **options)
    plain = mobilenet_zoo.create_model("mobilenetv4_conv_small_050", **options)
    assert tagged.name == plain.name == "mobilenetv4_conv_small_050"
    assert [w.shape for w in tagged.weights] == [w.shape for w in plain.weights]


# The names of timm are tested above.
@pytest.mark.parametrize("name", NOT_IN_TIMM)
def test_model_is_named_after_its_variant(name):
    assert mobilenet_zoo.create_model(name, input_shape=(32, 32, 3), include_top=False).name == name


def test_width_multiplier_multiplies_the_width_of_a_name():
    model = mobilenet_zoo.create_model("mobilenetv4_conv_small_050", width_multiplier=0.5, input_shape=(32, 32, 3))
    assert model.name == "mobilenetv4_conv_small_025"
