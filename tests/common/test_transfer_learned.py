"""A keras.applications body inside a user's own model is found in its file, and loaded."""

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
from tests.common.test_keras_applications import old_name, randomize
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


def their_body(key, **options):
    application, own, _, _ = BODIES[key]
    body = application(weights=None, input_shape=SHAPE, include_top=False, **own, **options)
    randomize(body)
    return body


def our_model(key, **options):
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
ENDINGS = (".keras", ".h5", ".weights.h5")


def saved(model, path):
    """Write a model or its weights, as the path's ending says; return the path."""
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)
    return path


def randomized(model):
    """Give what is new in a user's model other values than zeros; return the model."""
    for layer in model.layers:
        if isinstance(layer, LAYERS.Dense):
            layer.bias.assign(np.linspace(-1, 1, layer.bias.shape[0]))
    return model


def said_by(function, *arguments, **options):
    """Return a call's result, and the lines that it warned with."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*arguments, **options)
    return result, [
        str(warning.message) for warning in caught if issubclass(warning.category, mobilenet_zoo.MobileNetWarning)
    ]


def loaded_alike(key, body, path, deviation, what):
    ours, said = said_by(mobilenet_zoo.load_checkpoint, our_model(key, include_top=False), path)
    assert len(said) == 1 and "Left out: dense" in said[0], said
    image = seeded.image(*SHAPE[:2])
    deviation(key, what, infer(ours, image), infer(body, image), TOLERANCE)


@pytest.mark.neutral
@pytest.mark.parametrize(
    ("key", "form", "ending"),
    [
        ("V1", "sequential", ".weights.h5"),
        ("V2", "nested", ".keras"),
        ("V3 small", "nested", ".h5"),
        ("V3 minimalistic", "flat", ".keras"),
    ],
)
def test_a_body_of_the_running_backend(key, form, ending, tmp_path, deviation):
    body = their_body(key)
    path = saved(FORMS[form](body), tmp_path / f"flowers{ending}")
    loaded_alike(key, body, path, deviation, f"{form} {ending}")


@pytest.mark.across
@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", BODIES)
def test_every_body_in_every_form_and_file(key, form, ending, tmp_path, deviation):
    body = their_body(key)
    path = saved(FORMS[form](body), tmp_path / f"flowers{ending}")
    loaded_alike(key, body, path, deviation, f"{form} {ending}")


@pytest.mark.across
def test_a_body_in_a_subclassed_model(tmp_path, deviation):
    body = their_body("V2")
    loaded_alike("V2", body, saved(subclassed(body), tmp_path / "own.weights.h5"), deviation, "subclassed")


@pytest.mark.across
@pytest.mark.parametrize(
    ("key", "frozen"), [("V1", "half"), *(pytest.param("V3 small", frozen, marks=SLOW) for frozen in ("all", "half"))]
)
def test_a_frozen_body_in_the_format_of_keras_2(key, frozen, tmp_path, deviation):
    """Such a file lists what trains before what doesn't, so that the order says nothing."""
    body = their_body(key)
    for layer in body.layers[: None if frozen == "all" else len(body.layers) // 2]:
        layer.trainable = False
    loaded_alike(key, body, saved(nested(body), tmp_path / "frozen.h5"), deviation, f"{frozen} frozen")


# --- what is behind the body ---------------------------------------------------------------------------------------


@pytest.mark.across
@pytest.mark.parametrize(
    ("key", "form"),
    [
        ("V1", "nested"),
        *(pytest.param(*case, marks=SLOW) for case in (("V1", "flat"), ("V2", "nested"), ("V2", "flat"))),
    ],
)
def test_a_dense_layer_behind_the_pool_is_the_classifier(key, form, tmp_path, deviation):
    theirs = randomized(FORMS[form](their_body(key)))
    path = saved(theirs, tmp_path / "flowers.keras")
    ours, said = said_by(our_model, key, weights=path, classifier_activation=None)
    layer = theirs.layers[-1].name
    assert said == [f"{path} has a layer {layer} behind the body, which was loaded as the classifier."]
    assert ours.output_shape == (None, 5), "the classes are the file's"
    image = seeded.image(*SHAPE[:2])
    deviation(key, f"{form}, logits", infer(ours, image), infer(theirs, image), TOLERANCE)
    with pytest.warns(UserWarning, match="has 5 classes: the classifier for 7 classes is new and must"):
        our_model(key, weights=path, num_classes=7)


def two_dense():
    return keras.Sequential([LAYERS.Dense(8, "relu"), LAYERS.Dense(5)])


NOT_THE_CLASSIFIER = {
    "largest, not average": {"pool": LAYERS.GlobalMaxPooling2D},
    "flat, not average": {"pool": LAYERS.Flatten},
    "two layers": {"head": two_dense},
}


@pytest.mark.across
@pytest.mark.parametrize("ending", [".keras", pytest.param(".h5", marks=SLOW)])
@pytest.mark.parametrize("case", NOT_THE_CLASSIFIER)
def test_what_may_be_something_else_than_the_classifier_is_left_out(case, ending, tmp_path):
    body = their_body("V1")
    path = saved(nested(body, **NOT_THE_CLASSIFIER[case]), tmp_path / f"flowers{ending}")
    ours, said = said_by(our_model, "V1", num_classes=5, weights=path)
    assert said[0] == f"{path} has no classifier: classifier is new and must be trained."
    assert len(said) == 2 and "Left out: " in said[1] and "dense" in said[1]
    assert np.ptp(keras.ops.convert_to_numpy(ours.get_layer("classifier").kernel)) > 0


@pytest.mark.across
def test_a_head_with_a_wide_layer_that_the_file_lacks_is_fresh_as_a_whole(tmp_path, deviation):
    body = their_body("V3 large")
    path = saved(nested(body), tmp_path / "flowers.keras")
    ours, said = said_by(our_model, "V3 large", num_classes=5, weights=path)
    assert "has no classifier: head_dense and classifier are new and must be trained" in said[0]
    for name in ("head_dense", "classifier"):
        assert np.ptp(keras.ops.convert_to_numpy(ours.get_layer(name).kernel)) > 0, name
    features = keras.Model(ours.input, ours.get_layer("pool").input)
    image = seeded.image(*SHAPE[:2])
    deviation("V3 large", "below the head", infer(features, image), infer(body, image), TOLERANCE)


@pytest.mark.across
@pytest.mark.parametrize("form", ["nested", "flat"])
@pytest.mark.parametrize(
    ("key", "name"),
    [("V1", "predictions"), pytest.param("V2", "logits", marks=SLOW), pytest.param("V3 small", "logits", marks=SLOW)],
)
def test_a_layer_called_as_another_generations_classifier(key, name, form, tmp_path):
    body = their_body(key)
    x = LAYERS.GlobalAveragePooling2D()(body.output)
    head = LAYERS.Dense(5, name=name)
    if form == "nested":
        model = nested(body, head=lambda: head)
    else:
        model = keras.Model(body.input, head(x))
    expected = "Left out: logits" if key == "V3 small" else f"a layer {name} behind the body"
    _, said = said_by(our_model, key, weights=saved(model, tmp_path / "flowers.keras"))
    assert expected in said[-1]


@pytest.mark.across
def test_load_checkpoint_is_strict_where_a_create_function_adapts(tmp_path):
    path = saved(nested(their_body("V3 small")), tmp_path / "flowers.weights.h5")
    ours = our_model("V3 small", num_classes=5)
    before = ours.get_weights()
    with pytest.raises(
        CheckpointError, match=r"(?s)Missing \(4\): conv_2/0.*Not of the network: dense.*weights="
    ) as it:
        mobilenet_zoo.load_checkpoint(ours, path)
    assert it.value.missing == ("conv_2/0", "conv_2/1", "logits/0", "logits/1")
    for old, new in zip(before, ours.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.across
def test_a_body_that_lacks_a_block_is_no_body_without_classifier(tmp_path):
    path = saved(nested(their_body("V3 small")), tmp_path / "flowers.weights.h5")
    with pytest.raises(CheckpointError, match=r"Wrong shape|Missing"):
        our_model("V3 large", weights=path)


@pytest.mark.across
def test_two_bodies_are_none_that_is_meant(tmp_path):
    a, b = their_body("V1", name="left_eye"), their_body("V1", name="right_eye")
    image = keras.Input(SHAPE)
    model = keras.Model(image, LAYERS.Concatenate()([a(image), b(image)]))
    with pytest.raises(CheckpointError, match=r"holds 2 networks \(left_eye, right_eye\): save only the one you want"):
        mobilenet_zoo.load_checkpoint(our_model("V1", include_top=False), saved(model, tmp_path / "two.weights.h5"))


# --- bodies of this library, and older files -----------------------------------------------------------------------


@pytest.mark.across
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_body_of_this_library(ending, tmp_path, deviation):
    options = {"input_shape": SHAPE, "width_multiplier": 0.35, "include_top": False, "padding": "symmetric"}
    body = create_mobilenetv4("conv_small", norm_epsilon=0.02, **options)
    seeded.randomized(body)
    path = saved(nested(body), tmp_path / f"flowers{ending}")
    if ending == ".weights.h5":  # which alone doesn't say how the model was built
        options |= {"norm_epsilon": 0.02}
    else:
        del options["padding"]
    with pytest.warns(UserWarning, match="Left out: dense"):
        ours = create_mobilenetv4("conv_small", weights=path, **options)
    image = seeded.image(*SHAPE[:2])
    deviation("V4", f"own body {ending}", infer(ours, image), infer(body, image), TOLERANCE)


@pytest.mark.across
def test_a_model_that_a_user_extended_loads_its_own_file(tmp_path):
    body = create_mobilenetv4("conv_small", input_shape=SHAPE, width_multiplier=0.35, include_top=False)
    for model in (nested(body), flat(body)):
        path = saved(randomized(model), tmp_path / "extended.weights.h5")
        expected = model.get_weights()
        for variable in model.weights:
            variable.assign(np.zeros(variable.shape))
        mobilenet_zoo.load_checkpoint(model, path)
        for value, again in zip(expected, model.get_weights(), strict=True):
            np.testing.assert_array_equal(value, again)


def with_names_from_before_keras_3(model, body, path):
    """Write a model as Keras 2 did, whose V3 had slashes in its layers' names."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = []
            for variable in layer.trainable_weights + layer.non_trainable_weights:
                owner, _, name = variable.path.rpartition("/")
                depthwise = name == "kernel" and owner.endswith("depthwise")
                name = f"{old_name(owner) if layer is body else owner}/{'depthwise_' * depthwise}{name}:0"
                group[name] = keras.ops.convert_to_numpy(variable)
                names.append(name.encode())
            group.attrs["weight_names"] = names


@pytest.mark.across
@pytest.mark.parametrize("key", ["V3 small", "V3 minimalistic"])
def test_v3_bodies_with_names_from_before_keras_3(key, tmp_path, deviation):
    body = their_body(key)
    for layer in body.layers[: len(body.layers) // 2]:
        layer.trainable = False
    with_names_from_before_keras_3(nested(body), body, tmp_path / "old.h5")
    loaded_alike(key, body, tmp_path / "old.h5", deviation, "old names")


@pytest.mark.across
def test_layers_with_unknown_names_load_by_their_order():
    body = their_body("V2")
    tensors = {}
    for i, layer in enumerate(layer for layer in body.layers if layer.weights):
        tensors |= {f"layer_{i}/{j}": value for j, value in enumerate(layer.get_weights())}
    ours = mobilenet_zoo.load_checkpoint(our_model("V2", include_top=False), tensors, layout="keras")
    image = seeded.image(*SHAPE[:2])
    np.testing.assert_allclose(infer(ours, image), infer(body, image), atol=1e-4)
