"""Weights of a keras.applications body load from files of models that contain it."""

import warnings

import h5py
import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common import CheckpointError
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4
from tests import seeded
from tests.common.test_keras_applications import legacy_name, randomize
from tests.references import TOLERANCE, infer

APPLICATIONS, LAYERS = keras.applications, keras.layers
SHAPE = (32, 32, 3)
SLOW = pytest.mark.slow
V3 = {"include_preprocessing": False, "alpha": 0.35}
BODIES = {
    "V1": (APPLICATIONS.MobileNet, {"alpha": 0.25}, create_mobilenetv1, ("0.25",)),
    "V2": (APPLICATIONS.MobileNetV2, {"alpha": 0.35}, create_mobilenetv2, ("0.35",)),
    "V3 small": (APPLICATIONS.MobileNetV3Small, V3, create_mobilenetv3, ("small", 0.35)),
    "V3 large": (APPLICATIONS.MobileNetV3Large, V3, create_mobilenetv3, ("large", 0.35)),
    "V3 minimalistic": (
        APPLICATIONS.MobileNetV3Small,
        V3 | {"minimalistic": True},
        create_mobilenetv3,
        ("small_minimalistic", 0.35),
    ),
}


def keras_body(key, **options):
    application, body_options, _, _ = BODIES[key]
    body = application(weights=None, input_shape=SHAPE, include_top=False, **body_options, **options)
    randomize(body)
    return body


def build_model(key, **options):
    _, _, create, (variant, *width) = BODIES[key]
    return create(variant, width_multiplier=width[0] if width else 1.0, **{"input_shape": SHAPE} | options)


def nested(body, pool=LAYERS.GlobalAveragePooling2D, head=lambda: LAYERS.Dense(5)):
    image = keras.Input(SHAPE)
    x = LAYERS.Dropout(0.2)(pool()(body(LAYERS.RandomFlip()(image))))
    return keras.Model(image, head()(x))


def sequential(body):
    return keras.Sequential(
        [keras.Input(SHAPE), LAYERS.RandomFlip(), body, LAYERS.GlobalAveragePooling2D(), LAYERS.Dense(5)]
    )


def flat(body):
    return keras.Model(body.input, LAYERS.Dense(5)(LAYERS.GlobalAveragePooling2D()(body.output)))


def deeper(body):
    return keras.Sequential([keras.Input(SHAPE), sequential(body)])


class Subclassed(keras.Model):
    def __init__(self, body):
        super().__init__()
        self.body, self.pool, self.top = body, LAYERS.GlobalAveragePooling2D(), LAYERS.Dense(5)

    def call(self, x):
        return self.top(self.pool(self.body(x)))


def subclassed(body):
    model = Subclassed(body)
    model(np.zeros((1, *SHAPE), "float32"))
    return model


FORMS = {form.__name__: form for form in (nested, sequential, flat, deeper)}
EXTENSIONS = (".keras", ".h5", ".weights.h5")


def save(model, path):
    """Save a model, or only its weights, as the extension of the path requires. Return the path."""
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)
    return path


def assign_biases(model):
    """Assign nonzero biases to the dense layers of a model, and return it."""
    for layer in model.layers:
        if isinstance(layer, LAYERS.Dense):
            layer.bias.assign(np.linspace(-1, 1, layer.bias.shape[0]))
    return model


def call_with_warnings(function, *arguments, **options):
    """Return the result of a call and the messages of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*arguments, **options)
    return result, [
        str(warning.message) for warning in caught if issubclass(warning.category, mobilenet_zoo.MobileNetWarning)
    ]


def check_loading(key, body, path, deviation, case):
    model, messages = call_with_warnings(mobilenet_zoo.load_checkpoint, build_model(key, include_top=False), path)
    assert len(messages) == 1 and "Left out: dense" in messages[0], messages
    image = seeded.image(*SHAPE[:2])
    deviation(key, case, infer(model, image), infer(body, image), TOLERANCE)


@pytest.mark.neutral
@pytest.mark.parametrize(
    ("key", "form", "extension"),
    [
        ("V1", "sequential", ".weights.h5"),
        ("V2", "nested", ".keras"),
        ("V3 small", "nested", ".h5"),
        ("V3 minimalistic", "flat", ".keras"),
    ],
)
def test_body_saved_with_the_running_backend_loads(key, form, extension, tmp_path, deviation):
    body = keras_body(key)
    path = save(FORMS[form](body), tmp_path / f"flowers{extension}")
    check_loading(key, body, path, deviation, f"{form} {extension}")


@pytest.mark.across
@pytest.mark.slow
@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", BODIES)
def test_body_loads_from_every_form_of_model_and_file(key, form, extension, tmp_path, deviation):
    body = keras_body(key)
    path = save(FORMS[form](body), tmp_path / f"flowers{extension}")
    check_loading(key, body, path, deviation, f"{form} {extension}")


@pytest.mark.across
def test_body_loads_from_a_subclassed_model(tmp_path, deviation):
    body = keras_body("V2")
    check_loading("V2", body, save(subclassed(body), tmp_path / "own.weights.h5"), deviation, "subclassed")


@pytest.mark.across
@pytest.mark.parametrize(
    ("key", "frozen"), [("V1", "half"), *(pytest.param("V3 small", frozen, marks=SLOW) for frozen in ("all", "half"))]
)
def test_frozen_body_loads_from_the_keras_2_format(key, frozen, tmp_path, deviation):
    """Such a file lists trainable before frozen weights, so their order isn't that of the layers."""
    body = keras_body(key)
    for layer in body.layers[: None if frozen == "all" else len(body.layers) // 2]:
        layer.trainable = False
    check_loading(key, body, save(nested(body), tmp_path / "frozen.h5"), deviation, f"{frozen} frozen")


# --- layers after the body -----------------------------------------------------------------------------------------


@pytest.mark.across
@pytest.mark.parametrize(
    ("key", "form"),
    [
        ("V1", "nested"),
        *(pytest.param(*case, marks=SLOW) for case in (("V1", "flat"), ("V2", "nested"), ("V2", "flat"))),
    ],
)
def test_dense_layer_after_the_pool_is_the_classifier(key, form, tmp_path, deviation):
    user_model = assign_biases(FORMS[form](keras_body(key)))
    path = save(user_model, tmp_path / "flowers.keras")
    model, messages = call_with_warnings(build_model, key, weights=path, classifier_activation=None)
    layer = user_model.layers[-1].name
    assert messages == [f"{path} has a layer {layer} after the body, which was loaded as the classifier."]
    assert model.output_shape == (None, 5), "the number of classes must come from the file"
    image = seeded.image(*SHAPE[:2])
    deviation(key, f"{form}, logits", infer(model, image), infer(user_model, image), TOLERANCE)
    with pytest.warns(UserWarning, match="has 5 classes: the classifier for 7 classes is new and must"):
        build_model(key, weights=path, num_classes=7)


def two_dense():
    return keras.Sequential([LAYERS.Dense(8, "relu"), LAYERS.Dense(5)])


AMBIGUOUS_HEADS = {
    "max pooling": {"pool": LAYERS.GlobalMaxPooling2D},
    "flatten": {"pool": LAYERS.Flatten},
    "two dense layers": {"head": two_dense},
}


@pytest.mark.across
@pytest.mark.parametrize("extension", [".keras", pytest.param(".h5", marks=SLOW)])
@pytest.mark.parametrize("case", AMBIGUOUS_HEADS)
def test_ambiguous_head_is_left_out(case, extension, tmp_path):
    body = keras_body("V1")
    path = save(nested(body, **AMBIGUOUS_HEADS[case]), tmp_path / f"flowers{extension}")
    model, messages = call_with_warnings(build_model, "V1", num_classes=5, weights=path)
    assert messages[0] == f"{path} has no classifier: classifier is new and must be trained."
    assert len(messages) == 2 and "Left out: " in messages[1] and "dense" in messages[1]
    assert np.ptp(keras.ops.convert_to_numpy(model.get_layer("classifier").kernel)) > 0


@pytest.mark.across
def test_whole_head_is_new_if_the_file_lacks_head_dense(tmp_path, deviation):
    body = keras_body("V3 large")
    path = save(nested(body), tmp_path / "flowers.keras")
    model, messages = call_with_warnings(build_model, "V3 large", num_classes=5, weights=path)
    assert "has no classifier: head_dense and classifier are new and must be trained" in messages[0]
    for name in ("head_dense", "classifier"):
        assert np.ptp(keras.ops.convert_to_numpy(model.get_layer(name).kernel)) > 0, name
    features = keras.Model(model.input, model.get_layer("pool").input)
    image = seeded.image(*SHAPE[:2])
    deviation("V3 large", "below the head", infer(features, image), infer(body, image), TOLERANCE)


@pytest.mark.across
@pytest.mark.parametrize("form", ["nested", "flat"])
@pytest.mark.parametrize(
    ("key", "name"),
    [("V1", "predictions"), pytest.param("V2", "logits", marks=SLOW), pytest.param("V3 small", "logits", marks=SLOW)],
)
def test_dense_layer_may_be_named_like_another_classifier(key, name, form, tmp_path):
    body = keras_body(key)
    x = LAYERS.GlobalAveragePooling2D()(body.output)
    head = LAYERS.Dense(5, name=name)
    if form == "nested":
        model = nested(body, head=lambda: head)
    else:
        model = keras.Model(body.input, head(x))
    expected = "Left out: logits" if key == "V3 small" else f"a layer {name} after the body"
    _, messages = call_with_warnings(build_model, key, weights=save(model, tmp_path / "flowers.keras"))
    assert expected in messages[-1]


@pytest.mark.across
def test_load_checkpoint_rejects_a_file_without_classifier(tmp_path):
    path = save(nested(keras_body("V3 small")), tmp_path / "flowers.weights.h5")
    model = build_model("V3 small", num_classes=5)
    before = model.get_weights()
    with pytest.raises(
        CheckpointError, match=r"(?s)Missing \(4\): conv_2/0.*Outside the network: dense.*weights="
    ) as caught:
        mobilenet_zoo.load_checkpoint(model, path)
    assert caught.value.missing == ("conv_2/0", "conv_2/1", "logits/0", "logits/1")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.across
def test_body_of_another_variant_is_rejected(tmp_path):
    path = save(nested(keras_body("V3 small")), tmp_path / "flowers.weights.h5")
    with pytest.raises(CheckpointError, match=r"Wrong shape|Missing"):
        build_model("V3 large", weights=path)


@pytest.mark.across
def test_file_with_two_bodies_is_rejected(tmp_path):
    left, right = keras_body("V1", name="left_eye"), keras_body("V1", name="right_eye")
    image = keras.Input(SHAPE)
    model = keras.Model(image, LAYERS.Concatenate()([left(image), right(image)]))
    with pytest.raises(CheckpointError, match=r"holds 2 networks \(left_eye, right_eye\): save only the one you want"):
        mobilenet_zoo.load_checkpoint(build_model("V1", include_top=False), save(model, tmp_path / "two.weights.h5"))


# --- bodies of this library, and legacy files ----------------------------------------------------------------------


@pytest.mark.across
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_body_of_this_library_loads(extension, tmp_path, deviation):
    options = {"input_shape": SHAPE, "width_multiplier": 0.35, "include_top": False, "padding": "symmetric"}
    body = create_mobilenetv4("conv_small", norm_epsilon=0.02, **options)
    seeded.randomized(body)
    path = save(nested(body), tmp_path / f"flowers{extension}")
    if extension == ".weights.h5":  # the file doesn't record how the model was built
        options |= {"norm_epsilon": 0.02}
    else:
        del options["padding"]
    with pytest.warns(UserWarning, match="Left out: dense"):
        model = create_mobilenetv4("conv_small", weights=path, **options)
    image = seeded.image(*SHAPE[:2])
    deviation("V4", f"own body {extension}", infer(model, image), infer(body, image), TOLERANCE)


@pytest.mark.across
def test_extended_model_loads_its_own_file(tmp_path):
    body = create_mobilenetv4("conv_small", input_shape=SHAPE, width_multiplier=0.35, include_top=False)
    for model in (nested(body), flat(body)):
        path = save(assign_biases(model), tmp_path / "extended.weights.h5")
        expected = model.get_weights()
        for variable in model.weights:
            variable.assign(np.zeros(variable.shape))
        mobilenet_zoo.load_checkpoint(model, path)
        for value, loaded in zip(expected, model.get_weights(), strict=True):
            np.testing.assert_array_equal(value, loaded)


def write_keras_2_weights(model, body, path):
    """Write weights in the format of Keras 2, in which the layer names of V3 have slashes."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = []
            for variable in layer.trainable_weights + layer.non_trainable_weights:
                owner, _, name = variable.path.rpartition("/")
                depthwise = name == "kernel" and owner.endswith("depthwise")
                name = f"{legacy_name(owner) if layer is body else owner}/{'depthwise_' * depthwise}{name}:0"
                group[name] = keras.ops.convert_to_numpy(variable)
                names.append(name.encode())
            group.attrs["weight_names"] = names


@pytest.mark.across
@pytest.mark.parametrize("key", ["V3 small", "V3 minimalistic"])
def test_v3_body_loads_with_layer_names_of_keras_2(key, tmp_path, deviation):
    body = keras_body(key)
    for layer in body.layers[: len(body.layers) // 2]:
        layer.trainable = False
    write_keras_2_weights(nested(body), body, tmp_path / "old.h5")
    check_loading(key, body, tmp_path / "old.h5", deviation, "old names")


@pytest.mark.across
def test_layers_with_unknown_names_load_in_order():
    body = keras_body("V2")
    tensors = {}
    for i, layer in enumerate(layer for layer in body.layers if layer.weights):
        tensors |= {f"layer_{i}/{j}": value for j, value in enumerate(layer.get_weights())}
    model = mobilenet_zoo.load_checkpoint(build_model("V2", include_top=False), tensors, layout="keras")
    image = seeded.image(*SHAPE[:2])
    np.testing.assert_allclose(infer(model, image), infer(body, image), atol=1e-4)
