"""Architectures in YAML: both formats, and errors with line numbers."""

from pathlib import Path

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

pytestmark = pytest.mark.across

STAGE_PARAMS = Path(__file__).parents[1] / "reference" / "v4_stage_params"

VARIANTS = {
    f"{module.__name__}-{name}": architecture
    for module in (mobilenet_v1, mobilenet_v2, mobilenet_v3, mobilenet_v4)
    for name, architecture in module.VARIANTS.items()
}

# One row of every kind, with a non-default value for every field.
ALL_FIELDS = Architecture(
    name="everything",
    stem=Conv(24, 5, 2, activation="tanh", scaling="grow"),
    stages=(
        (Conv(16, 1, 1, "silu", "follow"), Separable(24, 2, 5)),
        (Inverted(5, None, 24, 0.5, "gelu", 1, False), Inverted(3, 48, 32, 0, None, 2)),
        (Fused(5, 40, 32, 2, False, False),),
        (
            Universal(3, 5, 48, 32, 1, 7, False, False, 0.25),
            Universal(0, 0, 48, 32, layer_scale=False),
            Attention(32, 2, 8, 4, 5, 2, (2, 1), False, 0.25, 0.5, False, 0.125),
        ),
        (Excite(6, "relu", "hard_sigmoid"), ChannelAttend(4, 2)),
    ),
    head=Head(Conv(64, 3, 1, "relu6", "fixed"), Dense(48, "layer", True, "tanh", "grow")),
    width=0.75,
    rounding="truncate",
    divisor=4,
    activation="silu",
    squeeze_activation=None,
    squeeze_divisor=1,
    normalization="group",
    norm_epsilon=1e-4,
    padding="symmetric",
    dropout_rate=0.3,
    layer_scale=1e-5,
    antialias="blur",
    minimum_size=16,
)

NATIVE = """\
name: mine
stem: {filters: 16, stride: 2}
activation: silu
stages:
- - {block: conv, filters: 16, kernel: 1}
- - {block: universal, start: 3, middle: 5, expanded: 48, filters: 24, stride: 2}
  - {block: attention, filters: 24, heads: 2, key_size: 8}
head:
  dense: {filters: 64}
"""

PARAMS = """\
backbone:
  params:
    stem_out_channel: 16
    final_conv_out_channel: 96
    act_type: silu
  stage_params:
    - - ['fi', 24, 32, 3, 2]
    - - ['uir', 32, 64, True, 3, True, 5, 2]
      - ['mmqa', 32, 64, 4, 2, True, 3, 2, 1]
"""


# --- the library's own format ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_yaml_round_trip_preserves_every_variant(name):
    assert Architecture.from_yaml(VARIANTS[name].to_yaml()) == VARIANTS[name]


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001"])
def test_numbers_are_read_in_every_notation(text):
    assert Architecture.from_yaml(f"norm_epsilon: {text}\n{NATIVE}").norm_epsilon == pytest.approx(1e-4)


@pytest.mark.parametrize(
    "architecture",
    [
        ALL_FIELDS,
        Architecture(stem=None, stages=((Conv(8),),), head=None),
        Architecture(stages=((Conv(8),),), normalization=None),
        Architecture(stages=((Conv(8),),), head=Head(dense=Dense(8, normalization=None))),
        VARIANTS["mobilenet_v3-small"].scaled(0.3),
        VARIANTS["mobilenet_v4-compact_nano"].with_activation("relu").with_normalization("batch"),
    ],
    ids=["all fields", "body", "unnormalized", "dense", "scaled", "overridden"],
)
def test_yaml_round_trip_preserves_custom_architectures(architecture):
    assert Architecture.from_yaml(architecture.to_yaml()) == architecture


def test_row_is_written_on_one_line_without_defaults():
    text = Architecture(name="short", stages=((Conv(8), Separable(16, 2)),)).to_yaml()
    assert "{block: conv, filters: 8}" in text
    assert "{block: separable, filters: 16, stride: 2}" in text
    assert "padding" not in text


def test_yaml_sets_the_fields_of_the_architecture():
    assert Architecture.from_yaml(NATIVE) == Architecture(
        name="mine",
        stem=Conv(16, stride=2),
        activation="silu",
        stages=((Conv(16, 1),), (Universal(3, 5, 48, 24, 2), Attention(24, 2, 8))),
        head=Head(dense=Dense(64)),
    )


def test_from_yaml_accepts_path_string_and_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(NATIVE)
    assert Architecture.from_yaml(path) == Architecture.from_yaml(str(path)) == Architecture.from_yaml(NATIVE)


def test_custom_yaml_builds_a_model():
    model = mobilenet_v4.create_mobilenetv4(Architecture.from_yaml(NATIVE), num_classes=3, input_shape=(64, 48, 3))
    names = [layer.name for layer in model.layers]
    assert [name for name in names if name.startswith("stage")] == ["stage1_block1", "stage2_block1", "stage2_block2"]
    assert model.name == "mine"
    assert model.get_layer("stage2_block2").output.shape == (None, 16, 12, 24)
    assert model.get_layer("head_dense").output.shape == (None, 1, 1, 64)
    assert model.output_shape == (None, 3)


# --- stage_params ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, extra_parameters",
    [("conv_small", 1344), ("conv_medium", 0), ("conv_large", 0), ("hybrid_medium", 0), ("hybrid_large", 0)],
)
def test_stage_params_match_the_named_models(name, extra_parameters):
    architecture = Architecture.from_yaml(STAGE_PARAMS / f"{name}.yaml")
    options = {"include_top": False, "input_shape": (32, 32, 3)}
    reference = mobilenet_v4.create_mobilenetv4(name, **options)
    converted = mobilenet_v4.create_mobilenetv4(architecture, **options)

    def trainable_shapes(model):
        return [tuple(variable.shape) for variable in model.trainable_variables]

    assert converted.count_params() - reference.count_params() == extra_parameters
    if not extra_parameters:
        assert trainable_shapes(converted) == trainable_shapes(reference)
    assert architecture.activation == mobilenet_v4.VARIANTS[name].activation


def test_stage_params_become_an_architecture():
    architecture = Architecture.from_yaml(PARAMS)
    assert architecture.stem == Conv(16, 3, 2, scaling="grow")
    assert architecture.stages == (
        (Fused(3, 32, 24, 2),),
        (Universal(3, 5, 64, 32, 2), Attention(32, 4, 16, kv_kernel=3, kv_stride=2, query_stride=2)),
        (Conv(96, 1),),
    )
    assert architecture.activation == "silu"
    assert architecture.head == Head(dense=Dense(1280))


@pytest.mark.parametrize(
    "row, expected",
    [
        ("['conv', 16, 5, 2]", Conv(16, 5, 2)),
        ("['uir', 16, 32, False, 3, True, 5, 2]", Universal(0, 5, 32, 16, 2)),
        ("['uir', 16, 32, True, 3, False, ~, 1]", Universal(3, 0, 32, 16)),
        ("['uir', 16, 32, False, ~, False, ~, 1]", Universal(0, 0, 32, 16)),
        ("['mmqa', 16, 32, 4, ~, False, ~, ~, 1]", Attention(16, 4, 8)),
        ("['mmqa', 16, 32, 4, ~, True, 5, 1, 1]", Attention(16, 4, 8, kv_kernel=5)),
    ],
)
def test_stage_params_row_becomes_a_row(row, expected):
    assert Architecture.from_yaml(f"stage_params:\n  - - {row}\n").stages[0] == (expected,)


@pytest.mark.parametrize(
    "norm_type, expected", [("batch_norm", "batch"), ("group_norm", "group"), ("layer_norm", "layer")]
)
def test_stage_params_set_the_normalization(norm_type, expected):
    text = PARAMS.replace("act_type: silu", f"norm_type: {norm_type}")
    assert Architecture.from_yaml(text).normalization == expected


# --- errors and their line numbers ----------------------------------------------------------------------------------


def native(old, new):
    """Replace `old` in the YAML text of the library's own format."""
    assert old in NATIVE
    return NATIVE.replace(old, new)


def params(old, new):
    """Replace `old` in the YAML text of the stage_params format."""
    assert old in PARAMS
    return PARAMS.replace(old, new)


@pytest.mark.parametrize(
    "text, line, message",
    [
        (native("silu\nstages:", "silu\nstages: ]"), 4, "not valid YAML"),
        (native("activation: silu", "activation: [silu"), 4, "not valid YAML"),
        (native("activation: silu", "activation: !wheel silu"), 3, "tag"),
        (native("block: conv,", "block: conf,"), 5, "block='conf' is not known. Did you mean 'conv'?"),
        (native("block: conv,", "block: [conv],"), 5, "block"),
        (native("block: conv, ", ""), 5, "a row needs the field block"),
        (native("activation:", "activaton:"), 3, "'activaton' is not known. Did you mean 'activation'"),
        (native("kernel: 1", "kernle: 1"), 5, "'kernle' is not known. Did you mean 'kernel'?"),
        (native("dense: {", "densse: {"), 9, "'densse' is not known. Did you mean 'dense'?"),
        (
            native("filters: 16, stride: 2}\nact", "filter: 16}\nact"),
            2,
            "'filter' is not known. Did you mean 'filters'?",
        ),
        (native("middle: 5", "middle: 4"), 6, "middle=4 is not allowed: a kernel size must be an odd"),
        (native("kernel: 1", "kernel: 2"), 5, "kernel=2 is not allowed: a kernel size must be an odd"),
        (native("heads: 2, ", ""), 7, "a row of kind Attention needs 'heads'"),
        (native("heads: 2", "heads: two"), 7, "heads='two'"),
        (native("stride: 2}\n  -", "stride: 3}\n  -"), 6, "stride=3 is not supported"),
        (native("activation: silu", "activation: sliu"), 3, "activation='sliu'"),
        (native("activation: silu", "stem: {filters: 8}"), 3, "field 'stem' appears twice"),
        (native("kernel: 1}", "kernel: 1, kernel: 3}"), 5, "field 'kernel' appears twice"),
        (native("filters: 64", "filters: -1"), 9, "filters=-1"),
        (native("- - {block: conv, filters: 16, kernel: 1}", "- conv"), 5, "expected a list for a stage"),
        (native("- - {block: conv, filters: 16, kernel: 1}", "- - conv"), 5, "expected fields and values for a row"),
        ("- 1\n- 2\n", 1, "expected fields and values for an architecture"),
        ("just a word", 1, "expected fields and values for an architecture"),
        ("name: mine\n", 1, "stages .*empty"),
        (params("'fi'", "'fib'"), 7, "row kind='fib' is not known. Did you mean 'fi'?"),
        (params("'fi', ", "['fi'], "), 7, "row kind"),
        (params("24, 32, 3, 2]", "24, 32, 3]"), 7, "'fi' must have 4 columns after its kind, got 3"),
        (params("5, 2]", "5, 2, 1]"), 8, "'uir' must have 7 columns after its kind, got 8"),
        (params("True, 5, 2]", "True, 6, 2]"), 8, "middle=6 is not allowed: a kernel size must be an odd"),
        (params("3, 2, 1]", "3, 2, 2]"), 9, "stride=2"),
        (params("64, 4, 2", "64, 3, 2"), 9, "heads=3 .* 64 attention channels"),
        (params("64, 4, 2", "64, 0, 2"), 9, "heads"),
        (params("act_type: silu", "act_typ: silu"), 5, "'act_typ' is not known. Did you mean 'act_type'?"),
        (params("  params:", "  parms:"), 2, "'parms' is not known. Did you mean 'params'?"),
        (params("act_type: silu", "stem_kernel_size: 4"), 5, "a kernel size must be an odd"),
        (params("act_type: silu", "final_conv_kernel_size: 2"), 5, "a kernel size must be an odd"),
        (params("act_type: silu", "norm_type: batch"), 5, "norm_type='batch' is not known. Did you mean 'batch_norm'"),
        (params("act_type: silu", "norm_type: [batch_norm]"), 5, "norm_type"),
        (params("act_type: silu", "return_stage_idx: [1]"), 5, "return_stage_idx.*pyramid_levels"),
        ("backbone:\n  params: {}\n", 2, "needs the field stage_params"),
        ("model: 3\n", 1, "expected fields and values"),
    ],
)
def test_invalid_yaml_reports_the_line(text, line, message):
    with pytest.raises(ValueError, match=f"^Line {line}: .*{message}"):
        Architecture.from_yaml(text)


@pytest.mark.parametrize("text", ["", "   \n\n", "# only a remark\n"])
def test_empty_yaml_is_rejected(text):
    with pytest.raises(ValueError, match="empty.*stages"):
        Architecture.from_yaml(text)


@pytest.mark.parametrize("make", [str, Path])
def test_missing_yaml_file_raises_file_not_found_error(make, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.yaml"):
        Architecture.from_yaml(make(tmp_path / "absent.yaml"))


@pytest.mark.parametrize("source", [None, 3, {"stages": []}])
def test_source_must_be_a_path_or_text(source):
    with pytest.raises(ValueError, match=f"source of type {type(source).__name__} is not allowed"):
        Architecture.from_yaml(source)


def test_yaml_tag_does_not_run_code(tmp_path):
    with pytest.raises(ValueError):
        Architecture.from_yaml(f"name: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    assert not (tmp_path / "made").exists()


def test_activation_function_is_written_as_its_name():
    import keras

    architecture = Architecture(stages=((Conv(8),),), activation=keras.activations.silu)
    assert "activation: silu" in architecture.to_yaml()
