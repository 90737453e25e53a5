"""Outputs match keras.applications' V1, V2 and V3 with the same weights."""

import re

import h5py
import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from tests import seeded
from tests.references import TOLERANCE, infer

APPLICATIONS = keras.applications
# keras.applications' V1 always pads strided depthwise convolutions below and to the right. This equals "same" padding
# only for even maps. Images of 223×191 pixels are odd, but their maps are even from the stem to the last stride.
EVEN_MAPS, ODD = (223, 191), (193, 161)
V3 = {"include_preprocessing": False}
PEERS = {
    "v1-1.0": (APPLICATIONS.MobileNet, {"alpha": 1.0}, create_mobilenetv1, ("1.0",), EVEN_MAPS),
    "v1-0.35": (APPLICATIONS.MobileNet, {"alpha": 0.35}, create_mobilenetv1, ("1.0", 0.35), EVEN_MAPS),
    "v2-1.0": (APPLICATIONS.MobileNetV2, {"alpha": 1.0}, create_mobilenetv2, ("1.0",), ODD),
    "v2-0.35": (APPLICATIONS.MobileNetV2, {"alpha": 0.35}, create_mobilenetv2, ("0.35",), ODD),
    "v2-1.4": (APPLICATIONS.MobileNetV2, {"alpha": 1.4}, create_mobilenetv2, ("1.4",), ODD),
    "v3-large": (APPLICATIONS.MobileNetV3Large, V3, create_mobilenetv3, ("large",), ODD),
    "v3-large-1.3": (APPLICATIONS.MobileNetV3Large, V3 | {"alpha": 1.3}, create_mobilenetv3, ("large", 1.3), ODD),
    "v3-large-minimalistic": (
        APPLICATIONS.MobileNetV3Large,
        V3 | {"minimalistic": True},
        create_mobilenetv3,
        ("large_minimalistic",),
        ODD,
    ),
    "v3-small": (APPLICATIONS.MobileNetV3Small, V3, create_mobilenetv3, ("small",), ODD),
    "v3-small-0.33": (APPLICATIONS.MobileNetV3Small, V3 | {"alpha": 0.33}, create_mobilenetv3, ("small", 0.33), ODD),
    "v3-small-1.4": (APPLICATIONS.MobileNetV3Small, V3 | {"alpha": 1.4}, create_mobilenetv3, ("small", 1.4), ODD),
    "v3-small-minimalistic": (
        APPLICATIONS.MobileNetV3Small,
        V3 | {"minimalistic": True},
        create_mobilenetv3,
        ("small_minimalistic",),
        ODD,
    ),
}
FAST = ("v1-0.35", "v2-0.35", "v3-small", "v3-small-minimalistic")
SIZES = {"even": lambda odd: (224, 224), "odd": lambda odd: odd}


def randomize(model):
    """Assign random weights, with statistics that differ per channel, and return `{path: array}`."""
    state = {}
    for variable in model.weights:
        owner, _, name = variable.path.rpartition("/")
        shape = tuple(variable.shape)
        torch_name = {"gamma": "weight", "moving_mean": "running_mean", "moving_variance": "running_var"}.get(
            name, name
        )
        value = seeded.tensor(f"{owner}.{torch_name}", shape[::-1]).T
        state[variable.path] = value
        variable.assign(value)
    return state


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "peer",
    [pytest.param(peer, marks=pytest.mark.neutral if peer in FAST else pytest.mark.slow) for peer in PEERS],
)
def test_outputs_match_keras_applications(peer, size, deviation):
    application, application_options, create, variant, odd = PEERS[peer]
    height, width = SIZES[size](odd)
    shape = (height, width, 3)
    keras_model = application(
        weights=None, input_shape=shape, classes=17, classifier_activation=None, include_top=True, **application_options
    )
    state = randomize(keras_model)
    name, *multiplier = variant
    model = create(name, 17, shape, *multiplier, classifier_activation=None)
    mobilenet_zoo.load_checkpoint(model, state, layout="keras")
    image = seeded.image(height, width)
    assert model.count_params() == keras_model.count_params()
    deviation(peer, f"{size} size", infer(model, image), infer(keras_model, image), TOLERANCE)


@pytest.mark.across
@pytest.mark.parametrize("extension", [".weights.h5", ".keras", ".h5"])
def test_keras_files_of_every_format_load(extension, tmp_path, deviation):
    shape = (64, 64, 3)
    keras_model = APPLICATIONS.MobileNetV3Small(
        weights=None, input_shape=shape, classes=5, classifier_activation=None, **V3
    )
    randomize(keras_model)
    path = tmp_path / f"small{extension}"
    if extension == ".weights.h5":
        keras_model.save_weights(path)
    else:
        keras_model.save(path)
    model = create_mobilenetv3("small", input_shape=shape, classifier_activation=None, weights=path)
    image = seeded.image(64, 64)
    outputs = infer(model, image)
    assert outputs.shape == (1, 5), "the number of classes must come from the file"
    deviation("v3-small", extension, outputs, infer(keras_model, image), TOLERANCE)


def legacy_name(name):
    """Return the name of a layer in the published files of V3, which are older than Keras 3."""
    name = re.sub(r"_bn$", "/BatchNorm", name)
    name = name.replace("squeeze_excite_conv", "squeeze_excite/Conv")
    name = re.sub(r"_(expand|depthwise|project|squeeze_excite)(?=/|_|$)", r"/\1", name)
    return re.sub(r"^(conv|logits)", lambda match: match[1].capitalize(), name)


def write_keras_2_weights(model, path, get_name):
    """Write weights in the format of Keras 2, which lists the layers in order."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [get_name(layer.name).encode() for layer in model.layers]
        for layer in model.layers:
            name = get_name(layer.name)
            weights = {f"{name}/{variable.name}:0": variable for variable in layer.weights}
            group = file.require_group(name)
            group.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, variable in weights.items():
                group[weight] = keras.ops.convert_to_numpy(variable)


LEGACY = {
    "V1": (APPLICATIONS.MobileNet, {"alpha": 0.25}, create_mobilenetv1, "0.25", str),
    "V2": (APPLICATIONS.MobileNetV2, {"alpha": 0.35}, create_mobilenetv2, "0.35", str),
    "V3": (APPLICATIONS.MobileNetV3Small, V3, create_mobilenetv3, "small", legacy_name),
    "V3 minimalistic": (
        APPLICATIONS.MobileNetV3Small,
        V3 | {"minimalistic": True},
        create_mobilenetv3,
        "small_minimalistic",
        legacy_name,
    ),
}


@pytest.mark.across
@pytest.mark.parametrize("key", LEGACY)
@pytest.mark.parametrize(
    ("file_with_top", "include_top"),
    [(True, True), (True, False), (False, False)],
    ids=["top", "top removed", "no top"],
)
def test_keras_2_files_load(key, file_with_top, include_top, tmp_path, deviation):
    """Layers are matched by name, or by order in the files of V3."""
    application, options, create, variant, get_name = LEGACY[key]
    shape = {"input_shape": (64, 64, 3), "classifier_activation": None}
    model = application(weights=None, include_top=file_with_top, classes=5, **shape, **options)
    randomize(model)
    write_keras_2_weights(model, tmp_path / "weights.h5", get_name)
    loaded = create(variant, include_top=include_top, weights=tmp_path / "weights.h5", **shape)
    if file_with_top and not include_top:
        pool = next(layer for layer in model.layers if layer.name.startswith("global_average_pooling"))
        model = keras.Model(model.input, pool.input)
    image = seeded.image(64, 64)
    deviation(key, "Keras 2 .h5", infer(loaded, image), infer(model, image), TOLERANCE)


@pytest.mark.across
def test_legacy_mapping_names_are_recognized():
    keras_model = APPLICATIONS.MobileNet(weights=None, alpha=0.25, input_shape=(32, 32, 3), classes=5)
    state = {}
    for path, value in randomize(keras_model).items():
        layer, name = path.split("/")
        name = "depthwise_kernel" if layer.startswith("conv_dw") and name == "kernel" else name
        state[f"{layer}/{layer}/{name}:0"] = value
    model = create_mobilenetv1("0.25", 5, (32, 32, 3))
    mobilenet_zoo.load_checkpoint(model, state, layout="keras")
    expected = next(value for path, value in state.items() if path.startswith("conv_dw_3/") and "kernel" in path)
    assert np.array_equal(keras.ops.convert_to_numpy(model.get_layer("stage2_block2").depthwise.kernel), expected)
