"""Nested models: every public function accepts them, or raises an error that says what to pass."""

import keras
import numpy as np
import pytest
from PIL import Image

import mobilenet_zoo
from mobilenet_cli.predict import feature_model
from mobilenet_common.architecture import Architecture, Conv, Head, Inverted
from mobilenet_v2 import WEIGHTS, create_mobilenetv2
from mobilenet_zoo.evaluation import evaluate, explain, grad_cam
from mobilenet_zoo.exporting.plan import make_plan
from mobilenet_zoo.exporting.prepared import ends_in_softmax, prepare
from mobilenet_zoo.exporting.reference import Reference
from mobilenet_zoo.training import Distiller, compile_model, load_recipe, rematerialize
from mobilenet_zoo.training.models import set_head_alone
from tests.created import array, assert_close, images, randomize
from tests.training import tiny

pytestmark = pytest.mark.across

SIZE = 32
TINY = Architecture(
    name="tiny",
    stem=Conv(8, stride=2),
    stages=((Inverted(3, 16, 8, stride=2),), (Inverted(3, 16, 8),)),
    head=Head(Conv(16, 1)),
)
CLASSES = 3


def body(name="body", **options):
    return create_mobilenetv2(TINY, CLASSES, (SIZE, SIZE, 3), dropout_rate=0, name=name, **options)


def top(x):
    x = keras.layers.GlobalAveragePooling2D(name="own_pool")(x)
    return keras.layers.Dense(CLASSES, "softmax", name="own_top")(x)


def functional(**options):
    image = keras.Input((SIZE, SIZE, 3))
    return keras.Model(image, top(body(include_top=False, **options)(image)), name="outer")


def sequential(**options):
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES, "softmax", name="own_top")]
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), body(include_top=False, **options), *layers], name="outer")


def nested_twice(**options):
    image, inner = keras.Input((SIZE, SIZE, 3)), keras.Input((SIZE, SIZE, 3))
    middle = keras.Model(inner, body(include_top=False, **options)(inner), name="middle")
    return keras.Model(image, top(middle(image)), name="outer")


def shared(**options):
    """Return a model that calls one body on the image and on its mirror image."""
    image, inner_body = keras.Input((SIZE, SIZE, 3)), body(include_top=False, **options)
    both = keras.layers.Average()([inner_body(image), inner_body(keras.layers.Permute((2, 1, 3))(image))])
    return keras.Model(image, top(both), name="outer")


def whole(**options):
    """Return a model that contains a whole classifier, with its softmax, as a layer."""
    image = keras.Input((SIZE, SIZE, 3))
    return keras.Model(image, body(**options)(image), name="outer")


class Subclassed(keras.Model):
    """A subclassed model, which has no graph of layers."""

    def __init__(self):
        super().__init__(name="outer")
        self.body = body(include_top=False, pooling="avg")
        self.top = keras.layers.Dense(CLASSES, "softmax")
        self(np.zeros((1, SIZE, SIZE, 3), "float32"))

    def call(self, x, training=None):
        return self.top(self.body(x, training=training))


GRAPHS = {builder.__name__: builder for builder in (functional, sequential, nested_twice, shared, whole)}
every_graph = pytest.mark.parametrize("build", GRAPHS.values(), ids=GRAPHS)
CALLS = {"shared": 2}  # how often a model calls its body; once if not listed


def randomized(build, **options):
    return randomize(build(**options))


def inner(model):
    return model.get_layer("middle").get_layer("body") if "middle" in layer_names(model) else model.get_layer("body")


def layer_names(model):
    return [layer.name for layer in model.layers]


def predict(model, x):
    return array(model(x, training=False))


# --- accepted ---------------------------------------------------------------------------------------------------------


@every_graph
def test_profile_includes_inner_layers(build):
    model = build()
    profile, inner_profile = mobilenet_zoo.profile(model), mobilenet_zoo.profile(inner(model))
    calls = CALLS.get(build.__name__, 1)
    top_macs = 0 if build is whole else 16 * CLASSES
    assert profile.macs == calls * inner_profile.macs + top_macs
    assert profile.parameters + profile.statistics == model.count_params()
    assert profile.peak_activation_bytes >= inner_profile.peak_activation_bytes
    prefix = "middle/body/" if build is nested_twice else "body/"
    assert [row.name for row in profile.rows if "stage" in row.name][:2] == [
        f"{prefix}stage1_block1",
        f"{prefix}stage2_block1",
    ]


def test_profile_includes_tensors_kept_beside_the_inner_model():
    """The image is used again after the body, so it stays in memory while the body runs."""
    image = keras.Input((SIZE, SIZE, 3))
    mean = keras.layers.GlobalAveragePooling2D()
    inner_body = body(include_top=False, pooling="avg")
    model = keras.Model(image, keras.layers.Concatenate()([inner_body(image), mean(image)]))
    inner_profile = mobilenet_zoo.profile(inner_body)
    peaks = {row.name: row.peak_activation_bytes for row in mobilenet_zoo.profile(model).rows}
    for row in inner_profile.rows:  # the stem reads the image itself
        kept_bytes = 0 if row.name == "stem" else SIZE * SIZE * 3 * 4
        assert peaks[f"{inner_body.name}/{row.name}"] == row.peak_activation_bytes + kept_bytes


@every_graph
def test_fuse_keeps_outputs(build):
    model, x = randomized(build), images(2, SIZE, SIZE, 3)
    fused = mobilenet_zoo.fuse(model)
    assert_close(predict(fused, x), predict(model, x), 1e-5)
    assert not [weight.path for weight in fused.weights if "moving" in weight.path]
    assert len(fused.weights) == len(model.weights) - 3 * 8  # a bias replaces the four variables of each of 8 norms
    with pytest.raises(ValueError, match="no batch norm"):
        mobilenet_zoo.freeze_batch_norm(fused)


@every_graph
@pytest.mark.parametrize("softmax", [None, True, False])
def test_prepared_copy_predicts_the_same(build, softmax):
    model, x = randomized(build), images(2, SIZE, SIZE, 3)
    expected = predict(model, x)
    options = {"batch_size": 2, "image_size": (SIZE, SIZE), "data_format": "channels_last"}
    copy = prepare(model, softmax=softmax, **options)
    outputs, reference = predict(copy, x), Reference(make_plan(model).model, (SIZE,) * 2)
    reference.softmax = softmax
    assert_close(reference(x)[0], outputs, 1e-5)
    if softmax is False:
        outputs = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    assert_close(outputs, expected, 1e-5)
    assert ends_in_softmax(model)


@every_graph
def test_export_plan_has_outputs_size_and_name(build):
    record = make_plan(build()).record
    assert (record.gives, record.size, record.name) == ("probabilities", (SIZE, SIZE), "outer")


@every_graph
def test_freeze_batch_norm_reaches_inner_layers(build):
    model = build()
    assert mobilenet_zoo.freeze_batch_norm(model) == 4  # stem, two blocks, head_conv
    assert not [weight.path for weight in model.trainable_weights if weight.path.endswith(("gamma", "beta"))]


@every_graph
def test_discriminative_rates_follow_inner_stages(build):
    model = randomized(build)
    optimizer = mobilenet_zoo.discriminative_rates(keras.optimizers.SGD(1.0), model, 0.5)
    optimizer.build(model.trainable_variables)
    rates = {
        variable.path: factor
        for variable, factor in zip(model.trainable_variables, optimizer._factors, strict=True)
        if variable.path.endswith("kernel")
    }
    stage_rates = {
        name: next(rate for path, rate in rates.items() if name in path) for name in ("stem", "stage1", "stage2")
    }
    assert stage_rates == {"stem": 0.5**3, "stage1": 0.5**2, "stage2": 0.5}
    assert next(rate for path, rate in rates.items() if "own_top" in path or "classifier" in path) == 1.0


@every_graph
def test_preprocessing_is_taken_from_the_body(build):
    name = next(name for name in WEIGHTS if "ra4" in name or "in1k" in name)
    assert WEIGHTS[name].mean != (0.5, 0.5, 0.5)
    model = build()
    inner(model).name = name  # the name of a model that was built from these weights
    transform = mobilenet_zoo.preprocessing(model)
    assert (transform.mean, transform.std, transform.size) == (WEIGHTS[name].mean, WEIGHTS[name].std, (SIZE, SIZE))
    assert mobilenet_zoo.class_names_of(model) is None


@every_graph
def test_model_with_normalizing_body_takes_pixels(build):
    assert mobilenet_zoo.preprocessing(build(include_preprocessing=True)).mean is None
    assert mobilenet_zoo.preprocessing(build()).mean is not None


def test_model_with_rescaling_takes_pixels():
    image = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(image, top(body(include_top=False)(keras.layers.Rescaling(1 / 127.5, -1)(image))))
    assert mobilenet_zoo.preprocessing(model).mean is None


@every_graph
def test_folder_restores_the_model(build, tmp_path):
    model, x, names = randomized(build), images(2, SIZE, SIZE, 3), ["ant", "bee", "cat"]
    folder = mobilenet_zoo.save_pretrained(model, tmp_path / "saved", class_names=names)
    loaded = mobilenet_zoo.from_pretrained(folder)
    np.testing.assert_array_equal(predict(loaded, x), predict(model, x))
    assert mobilenet_zoo.class_names_of(loaded) == names
    assert "pipeline_tag: image-classification" in (folder / "README.md").read_text()
    decoded = mobilenet_zoo.decode_predictions(predict(loaded, x), 1, class_names=names)
    assert decoded[0][0].name == names[int(predict(model, x)[0].argmax())]


@every_graph
def test_grad_cam_and_explain_accept_nested_models(build):
    model, x = randomized(build), images(2, SIZE, SIZE, 3)
    maps, logits = grad_cam(model, x)
    assert maps.shape == (2, 8, 8) and maps.max() > 0
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    assert_close(exponentials / exponentials.sum(-1, keepdims=True), predict(model, x), 1e-4)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), "uint8"))
    assert 0 <= explain(model, image).probability <= 1


@every_graph
def test_evaluate_accepts_nested_models(build):
    evaluation = evaluate(randomize(build()), tiny.examples(6), class_names=tiny.CLASSES, speed=False)
    assert evaluation.probabilities.shape == (6, 3)
    np.testing.assert_allclose(evaluation.probabilities.sum(1), 1, atol=1e-5)
    assert evaluation.costs["parameters"] == mobilenet_zoo.profile(build()).parameters


def test_evaluate_converts_logits_of_a_body_to_probabilities():
    evaluation = evaluate(
        randomized(whole, classifier_activation=None), tiny.examples(6), class_names=tiny.CLASSES, speed=False
    )
    np.testing.assert_allclose(evaluation.probabilities.sum(1), 1, atol=1e-5)


@every_graph
def test_features_are_the_output_of_the_last_pooling(build):
    """The features are the output of the last pooling layer, which is in the outer or in the inner model."""
    model, x = randomized(build), images(2, SIZE, SIZE, 3)
    features = predict(feature_model(model), x)
    assert features.shape == (2, 16)
    inner_model = inner(model)
    maps = keras.Model(inner_model.input, inner_model.get_layer("head_conv").output)
    expected = array(maps(x)).mean((1, 2))
    if build is shared:
        expected = (expected + array(maps(x.transpose(0, 2, 1, 3))).mean((1, 2))) / 2
    assert_close(features, expected, 1e-5)


def test_features_of_a_body_with_pooling_under_a_dense_layer():
    image = keras.Input((SIZE, SIZE, 3))
    inner_body = body(include_top=False, pooling="avg")
    model = randomize(keras.Model(image, keras.layers.Dense(CLASSES, "softmax")(inner_body(image))))
    x = images(2, SIZE, SIZE, 3)
    assert_close(predict(feature_model(model), x), predict(inner_body, x), 1e-6)


@every_graph
def test_set_head_alone_freezes_all_but_the_head(build):
    model = build()
    before = [weight.path for weight in model.trainable_weights]
    set_head_alone(model, True)
    trained_layers = {weight.path.rpartition("/")[0].rpartition("/")[2] for weight in model.trainable_weights}
    assert trained_layers == {"head_conv", "classifier" if build is whole else "own_top"}
    set_head_alone(model, False)
    assert [weight.path for weight in model.trainable_weights] == before


@every_graph
def test_training_functions_accept_nested_models(build):
    model = randomized(build)
    recipe = load_recipe({"optimizer": {"layer_decay": 0.5}})
    compile_model(model, recipe, 2, metrics=())
    assert Distiller(model, randomized(build)).student is model
    assert rematerialize(model) == 2


# --- rejected ---------------------------------------------------------------------------------------------------------


@every_graph
def test_checkpoint_functions_name_the_body(build, tmp_path):
    model = build()
    expression = "model.get_layer('middle').get_layer('body')" if build is nested_twice else "model.get_layer('body')"
    arrays = {"conv_stem.weight": np.zeros((8, 3, 3, 3), "float32")}
    for call in (
        lambda: mobilenet_zoo.load_checkpoint(model, arrays),
        lambda: mobilenet_zoo.export_checkpoint(model, tmp_path / "out.safetensors"),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert f"It wraps a MobileNet: pass {expression}." in str(error.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError) as error:
        mobilenet_zoo.reset_classifier(model, 5)
    assert f"itself has no classifier. It wraps a MobileNet: pass {expression}, or add new" in str(error.value)


def test_body_that_get_layer_does_not_reach_is_named(tmp_path):
    frames = keras.Input((2, SIZE, SIZE, 3))
    model = keras.Model(frames, keras.layers.TimeDistributed(body(include_top=False))(frames), name="outer")
    for call in (
        lambda: mobilenet_zoo.export_checkpoint(model, tmp_path / "out.safetensors"),
        lambda: mobilenet_zoo.reset_classifier(model, 5),
    ):
        with pytest.raises(ValueError, match="It wraps a MobileNet: pass the inner model 'body'"):
            call()


@pytest.mark.parametrize(
    "call",
    [
        mobilenet_zoo.profile,
        mobilenet_zoo.fuse,
        lambda model: mobilenet_zoo.export(model, "m.tflite"),
        mobilenet_zoo.preprocessing,
        lambda model: mobilenet_zoo.save_pretrained(model, "folder"),
        feature_model,
    ],
    ids=["profile", "fuse", "export", "preprocessing", "save_pretrained", "features"],
)
def test_subclassed_model_raises(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as error:
        call(Subclassed())
    expected = "takes functional and Sequential models, but outer is a Subclassed. It wraps a MobileNet"
    assert f"{expected}: pass model.get_layer('body')." in str(error.value)
    assert not list(tmp_path.iterdir())


def test_subclassed_model_can_be_frozen_and_has_rates():
    model = Subclassed()
    assert mobilenet_zoo.freeze_batch_norm(model) == 4
    assert mobilenet_zoo.discriminative_rates("sgd", model).rates["stem"] < 1


def test_unbuilt_sequential_model_raises():
    model = keras.Sequential([keras.layers.Dense(3)], name="unbuilt")
    with pytest.raises(ValueError, match="profile needs a built model: start unbuilt with a keras.Input"):
        mobilenet_zoo.profile(model)


def test_layers_that_are_not_counted_warn():
    image = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(image, keras.layers.SeparableConv2D(4, 3, name="separable")(body(include_top=False)(image)))
    with pytest.warns(UserWarning, match=r"the multiply-accumulates of separable \(SeparableConv2D\)"):
        mobilenet_zoo.profile(model)
