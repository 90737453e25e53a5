"""Invalid arguments raise a `ValueError` that names the argument, its value, what is allowed, and similar names."""

import re

import keras
import pytest

import mobilenet_zoo
from mobilenet_common.architecture import Architecture, Conv, Head, Universal
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import compact_architecture, create_mobilenetv4

pytestmark = pytest.mark.across

FUNCTIONS = [create_mobilenetv1, create_mobilenetv2, create_mobilenetv3, create_mobilenetv4]
NAN, INFINITY = float("nan"), float("inf")

every_function = pytest.mark.parametrize("create", FUNCTIONS, ids=lambda function: function.__name__)


def assert_rejected(message, create, *arguments, **options):
    """Assert that a call raises a `ValueError` that contains the parts of `message` (separated by " ... ") in order."""
    pattern = ".*".join(re.escape(part) for part in message.split(" ... "))
    with pytest.raises(ValueError, match=f"(?s){pattern}"):
        create(*arguments, **options)


# --- all create functions -------------------------------------------------------------------------------------------


@every_function
@pytest.mark.parametrize(
    "argument, value, message",
    [
        ("width_multiplier", 0, "width_multiplier=0 ... a number in (0, 4]"),
        ("width_multiplier", -0.5, "width_multiplier=-0.5 ... (0, 4]"),
        ("width_multiplier", NAN, "width_multiplier=nan ... (0, 4]"),
        ("width_multiplier", INFINITY, "width_multiplier=inf ... (0, 4]"),
        ("width_multiplier", 4.5, "width_multiplier=4.5 ... (0, 4]"),
        ("width_multiplier", "1.0", "width_multiplier='1.0' ... (0, 4]"),
        ("width_multiplier", None, "width_multiplier=None ... (0, 4]"),
        ("num_classes", 0, "num_classes=0 ... an integer of at least 1"),
        ("num_classes", -3, "num_classes=-3 ... at least 1"),
        ("num_classes", 2.0, "num_classes=2.0 ... an integer"),
        ("num_classes", True, "num_classes=True ... an integer"),
        ("input_shape", (224, 224), "input_shape=(224, 224) ... (height, width, channels), without the batch"),
        ("input_shape", (1, 224, 224, 3), "input_shape=(1, 224, 224, 3) ... without the batch"),
        ("input_shape", 224, "input_shape=224 ... (height, width, channels)"),
        ("input_shape", (31, 224, 3), "input_shape=(31, 224, 3) ... at least 32 pixels"),
        ("input_shape", (224, 31, 3), "input_shape=(224, 31, 3) ... at least 32 pixels"),
        ("input_shape", (None, 31, 3), "input_shape=(None, 31, 3) ... at least 32 pixels"),
        ("input_shape", (3, 224, 224), "input_shape=(3, 224, 224) ... The channels seem to be on the wrong side"),
        ("input_shape", (1, None, None), "input_shape=(1, None, None) ... (height, width, channels)"),
        ("input_shape", (224, 224, None), "input_shape=(224, 224, None) has no number of channels"),
        ("input_shape", (224, 224, 0), "input_shape channels=0 ... at least 1"),
        ("input_shape", (224.0, 224, 3), "input_shape height=224.0 ... an integer"),
        ("include_top", "yes", "include_top='yes' ... True or False"),
        ("pooling", "mean", "pooling='mean' ... None, 'avg', 'max'"),
        ("output_stride", 4, "output_stride=4 ... 32, 16, 8"),
        ("output_stride", 64, "output_stride=64 ... 32, 16, 8"),
        ("output_stride", None, "output_stride=None ... 32, 16, 8"),
        ("classifier_activation", "sofmax", "classifier_activation='sofmax' is not an activation"),
        ("classifier_activation", 3, "classifier_activation=3 is not an activation"),
        ("dropout_rate", 1, "dropout_rate=1 ... a number in [0, 1)"),
        ("dropout_rate", -0.1, "dropout_rate=-0.1 ... [0, 1)"),
        ("drop_path_rate", 1.0, "drop_path_rate=1.0 ... [0, 1)"),
        ("drop_path_rate", NAN, "drop_path_rate=nan ... [0, 1)"),
        ("padding", "valid", "padding='valid' ... 'same', 'symmetric'"),
        ("norm_epsilon", 0, "norm_epsilon=0 ... (0, 1]"),
        ("norm_momentum", 1, "norm_momentum=1 ... [0, 1)"),
        ("activation", "rleu", "activation='rleu' is not an activation ... 'relu'"),
        ("normalization", "instance", "normalization='instance' ... 'batch', 'group', 'layer'"),
        ("data_format", "channels_middle", "data_format='channels_middle' ... 'channels_last', 'channels_first'"),
        ("input_tensor", (224, 224, 3), "input_tensor of type tuple ... a Keras tensor"),
        ("weights", "absent.safetensors", "absent.safetensors is not a file"),
        ("weights", "imagnet", "weights='imagnet' is not known. Did you mean 'imagenet'"),
        ("weights", 3, "int is not allowed ... a path"),
        ("include_preprocessing", "yes", "include_preprocessing='yes' ... True or False"),
        ("padding", "", "padding='' ... 'same', 'symmetric'"),
        ("data_format", "", "data_format='' ... 'channels_last', 'channels_first'"),
        ("dtype", "float31", "float31"),
    ],
)
def test_invalid_argument_raises(create, argument, value, message):
    assert_rejected(message, create, **{argument: value})


@every_function
@pytest.mark.parametrize("argument", ["pooling", "pyramid_levels"])
def test_feature_extractor_argument_with_top_raises(create, argument):
    value = {"pooling": "avg", "pyramid_levels": (2, 3)}[argument]
    message = f"{argument}={value!r} is for feature extractors ... include_top=False"
    assert_rejected(message, create, **{argument: value})


@every_function
def test_pooling_with_pyramid_levels_raises(create):
    assert_rejected(
        "pooling='max' and pyramid_levels=(3,) can't be combined",
        create,
        include_top=False,
        pooling="max",
        pyramid_levels=(3,),
    )


@every_function
@pytest.mark.parametrize("levels", [(6,), (0,), (2, 6), (3, 3), (), 5, ("P3",), "23", (2.5,)])
def test_invalid_pyramid_levels_raise(create, levels):
    assert_rejected(
        f"pyramid_levels={levels!r} is not supported ... (1, 2, 3, 4, 5)",
        create,
        include_top=False,
        pyramid_levels=levels,
    )


@pytest.mark.parametrize("levels", [(3,), (0,)])
def test_pyramid_levels_beyond_the_last_stride_raise(levels):
    options = {"include_top": False, "pyramid_levels": levels}
    assert_rejected(f"pyramid_levels={levels!r} ... (1, 2)", create_mobilenetv4, "compact_nano", **options)


# --- variants -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "create, variant, message",
    [
        (create_mobilenetv1, "1.0g", "variant='1.0g' is not known. Did you mean ... '1.0' ... Allowed: 1.0, 0.75"),
        (create_mobilenetv1, 0.6, "variant=0.6 is not known ... Allowed: 1.0, 0.75, 0.5, 0.25, 1.25, 1.0h"),
        (create_mobilenetv2, "1.1", "variant='1.1' is not known. Did you mean '1.1d'"),
        (create_mobilenetv3, "smal", "variant='smal' is not known. Did you mean 'small' ... Allowed: large, small"),
        (create_mobilenetv3, "large_minimal", "Did you mean 'large_minimalistic'"),
        (create_mobilenetv4, "conv_smal", "variant='conv_smal' is not known. Did you mean 'conv_small'"),
        (create_mobilenetv4, "hybrid", "variant='hybrid' is not known ... 'hybrid_large'"),
        (create_mobilenetv4, "Conv_Medium", "variant='Conv_Medium' is not known. Did you mean 'conv_medium'"),
        (create_mobilenetv4, None, "variant=None is not known ... Allowed: conv_small"),
        (create_mobilenetv4, True, "variant=True is not known"),
        (create_mobilenetv1, True, "variant=True is not known"),
        (create_mobilenetv1, NAN, "variant=nan is not known"),
        (create_mobilenetv4, ["conv_small"], "variant=['conv_small'] is not known"),
    ],
)
def test_unknown_variant_raises(create, variant, message):
    assert_rejected(message, create, variant)


# --- images -------------------------------------------------------------------------------------------------------


@every_function
@pytest.mark.parametrize(
    "shape, message",
    [
        ((224, 224, 3), "input_shape=(224, 224, 3) ... The channels seem to be on the wrong side"),
        ((3, 31, 224), "input_shape=(3, 31, 224) ... at least 32 pixels"),
        ((3, 224), "(channels, height, width)"),
        ((None, 224, 224), "has no number of channels"),
    ],
)
def test_invalid_channels_first_input_shape_raises(create, shape, message):
    assert_rejected(message, create, input_shape=shape, data_format="channels_first")


@pytest.mark.parametrize("shape", [(7, 8, 3), (8, 7, 3)])
def test_compact_model_below_8_pixels_raises(shape):
    assert_rejected(f"input_shape={shape} ... at least 8 pixels", create_mobilenetv4, "compact_nano", input_shape=shape)


def test_small_image_error_has_no_hint_about_channels():
    with pytest.raises(ValueError) as caught:
        create_mobilenetv4(input_shape=(16, 16, 3))
    assert "wrong side" not in str(caught.value)


@every_function
def test_input_tensor_of_the_wrong_shape_raises(create):
    assert_rejected("input_tensor has the shape", create, input_tensor=keras.Input((224, 224)))
    image = keras.Input((64, 64, 3))
    assert_rejected(
        "input_shape=(32, 32, 3) is not the shape of input_tensor, (64, 64, 3)",
        create,
        input_shape=(32, 32, 3),
        input_tensor=image,
    )
    assert_rejected("at least 32 pixels", create, input_tensor=keras.Input((16, 64, 3)))


def test_body_without_stem_requires_input_shape():
    body = Architecture(stem=None, stages=((Universal(0, 3, 16, 8),),), head=None)
    assert_rejected("input_shape=None ... without a stem", create_mobilenetv4, body, include_top=False)


# --- architectures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Conv(8, kernel=4), "kernel=4 is not allowed: a kernel size must be an odd positive integer"),
        (lambda: Universal(2, 3, 8, 8), "start=2 ... odd"),
        (lambda: Architecture(stages=((Conv(8), {"block": "conv"}),)), "stage1_block2={'block': 'conv'} is not"),
        (lambda: Head(conv=8), "head conv=8 ... a Conv row"),
        (lambda: compact_architecture(36, 64, 6, 4, 2, 2, 3, 1), "base=36 ... a multiple of 8 and of heads=4"),
        (lambda: compact_architecture(0, 64, 6, 4, 2, 2, 3, 1), "=0 is not allowed"),
        (lambda: compact_architecture(24, 0, 6, 4, 2, 2, 3, 1), "expanded=0 is not allowed"),
        (lambda: compact_architecture(24, 64, 0, 4, 2, 2, 3, 1), "squeeze=0 is not allowed"),
        (lambda: compact_architecture(24, 64, 6, 0, 2, 2, 3, 1), "heads=0 is not allowed"),
        (lambda: compact_architecture(24, 64, 6, 4, -1, 2, 3, 1), "fused=-1 is not allowed"),
        (lambda: compact_architecture(24, 64, 6, 4, 2.5, 2, 3, 1), "fused=2.5 is not allowed"),
        (lambda: compact_architecture(24, 64, 6, 4, 2, 2, 3, 1, 0), "=0 is not allowed"),
        (lambda: compact_architecture(24, 64, 6, 4, 2, 2, 3, 1, dropout_rate=1), "dropout_rate=1 "),
    ],
)
def test_invalid_architecture_raises(build, message):
    assert_rejected(message, build)


# --- weights --------------------------------------------------------------------------------------------------------


@every_function
@pytest.mark.parametrize("extension", [".txt", ".npz", ".pkl", ""])
def test_weights_with_an_unknown_extension_raise(create, extension, tmp_path):
    path = tmp_path / f"model{extension}"
    path.write_bytes(b"weights")
    with pytest.raises(mobilenet_zoo.CheckpointError, match=f"unknown extension '{extension}'.*Allowed: .safetensors"):
        create(weights=path)


@every_function
def test_missing_weights_file_raises(create, tmp_path):
    with pytest.raises(mobilenet_zoo.CheckpointError, match=r"absent\.keras is not a file"):
        create(weights=tmp_path / "absent.keras")


# --- the zoo --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, message",
    [
        ("mobilenetv4_conv_smal", "name='mobilenetv4_conv_smal' is not known. Did you mean 'mobilenetv4_conv_small'"),
        ("mobilenet_v2_100", "Did you mean ... 'mobilenetv2_100'"),
        ("resnet50", "name='resnet50' is not known ... Allowed: 46 names; list all with: mobilenet_zoo.list_models()."),
        ("mobilenetv4_conv_smal.e2400_r224_in1k", "Did you mean 'mobilenetv4_conv_small'"),
        ("", "name='' is not known"),
        (None, "name=None is not known"),
        (50, "name=50 is not known"),
    ],
)
def test_unknown_model_name_raises(name, message):
    assert_rejected(message, mobilenet_zoo.create_model, name)


def test_create_model_rejects_a_variant():
    assert_rejected("variant is not an argument", mobilenet_zoo.create_model, "mobilenetv2_100", variant="0.5")


@pytest.mark.parametrize("width", [0, -1, NAN, INFINITY, "1.0"])
def test_create_model_rejects_an_invalid_width(width):
    name = "mobilenetv4_conv_small_050"
    assert_rejected("width_multiplier=", mobilenet_zoo.create_model, name, width_multiplier=width)


def test_misspelled_argument_raises():
    with pytest.raises(TypeError, match="num_clases"):
        mobilenet_zoo.create_model("mobilenetv2_100", num_clases=3)
