"""Every public function takes a model within a model, or says what to pass."""

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
from tests.created import array, close, images, randomize
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


def two_deep(**options):
    image, inner = keras.Input((SIZE, SIZE, 3)), keras.Input((SIZE, SIZE, 3))
    middle = keras.Model(inner, body(include_top=False, **options)(inner), name="middle")
    return keras.Model(image, top(middle(image)), name="outer")


def shared(**options):
    """One body that sees an image and its mirror image."""
    image, inside = keras.Input((SIZE, SIZE, 3)), body(include_top=False, **options)
    both = keras.layers.Average()([inside(image), inside(keras.layers.Permute((2, 1, 3))(image))])
    return keras.Model(image, top(both), name="outer")


def whole(**options):
    """A classifier that is a layer, its softmax inside."""
    image = keras.Input((SIZE, SIZE, 3))
    return keras.Model(image, body(**options)(image), name="outer")


class Subclassed(keras.Model):
    """A model whose graph nobody sees."""

    def __init__(self):
        super().__init__(name="outer")
        self.body = body(include_top=False, pooling="avg")
        self.top = keras.layers.Dense(CLASSES, "softmax")
        self(np.zeros((1, SIZE, SIZE, 3), "float32"))

    def call(self, x, training=None):
        return self.top(self.body(x, training=training))


GRAPHS = {each.__name__: each for each in (functional, sequential, two_deep, shared, whole)}
each_graph = pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS)
CALLS = {"shared": 2}  # of the body


def made(make, **options):
    return randomize(make(**options))


def inner(model):
    return model.get_layer("middle").get_layer("body") if "middle" in _names(model) else model.get_layer("body")


def _names(model):
    return [layer.name for layer in model.layers]


def predicted(model, x):
    return array(model(x, training=False))


# --- what works ------------------------------------------------------------------------------------------------------


@each_graph
def test_profile(make):
    model = make()
    found, alone = mobilenet_zoo.profile(model), mobilenet_zoo.profile(inner(model))
    calls = CALLS.get(make.__name__, 1)
    own = 0 if make is whole else 16 * CLASSES
    assert found.macs == calls * alone.macs + own
    assert found.parameters + found.statistics == model.count_params()
    assert found.peak_activation_bytes >= alone.peak_activation_bytes
    prefix = "middle/body/" if make is two_deep else "body/"
    assert [row.name for row in found.rows if "stage" in row.name][:2] == [
        f"{prefix}stage1_block1",
        f"{prefix}stage2_block1",
    ]


def test_profile_counts_what_is_kept_beside_a_model_within():
    """The image, which is read again behind the body, lives while the body runs."""
    image = keras.Input((SIZE, SIZE, 3))
    mean = keras.layers.GlobalAveragePooling2D()
    inside = body(include_top=False, pooling="avg")
    kept = keras.Model(image, keras.layers.Concatenate()([inside(image), mean(image)]))
    alone = mobilenet_zoo.profile(inside)
    at = {row.name: row.peak_activation_bytes for row in mobilenet_zoo.profile(kept).rows}
    for row in alone.rows:  # the stem reads the image itself
        held = 0 if row.name == "stem" else SIZE * SIZE * 3 * 4
        assert at[f"{inside.name}/{row.name}"] == row.peak_activation_bytes + held


@each_graph
def test_fuse(make):
    model, x = made(make), images(2, SIZE, SIZE, 3)
    fused = mobilenet_zoo.fuse(model)
    close(predicted(fused, x), predicted(model, x), 1e-5)
    assert not [weight.path for weight in fused.weights if "moving" in weight.path]
    assert len(fused.weights) == len(model.weights) - 3 * 8  # a bias in place of four numbers of each of 8 norms
    with pytest.raises(ValueError, match="no batch norm"):
        mobilenet_zoo.freeze_batch_norm(fused)


@each_graph
@pytest.mark.parametrize("softmax", [None, True, False])
def test_prepare_for_export(make, softmax):
    model, x = made(make), images(2, SIZE, SIZE, 3)
    expected = predicted(model, x)
    options = {"batch_size": 2, "image_size": (SIZE, SIZE), "data_format": "channels_last"}
    prepared = prepare(model, softmax=softmax, **options)
    found, reference = predicted(prepared, x), Reference(make_plan(model).model, (SIZE,) * 2)
    reference.softmax = softmax
    close(reference(x)[0], found, 1e-5)
    if softmax is False:
        found = np.exp(found) / np.exp(found).sum(-1, keepdims=True)
    close(found, expected, 1e-5)
    assert ends_in_softmax(model)


@each_graph
def test_the_plan_of_an_export(make):
    record = make_plan(make()).record
    assert (record.gives, record.size, record.name) == ("probabilities", (SIZE, SIZE), "outer")


@each_graph
def test_freeze_batch_norm(make):
    model = make()
    assert mobilenet_zoo.freeze_batch_norm(model) == 4  # stem, two blocks, head_conv
    assert not [weight.path for weight in model.trainable_weights if weight.path.endswith(("gamma", "beta"))]


@each_graph
def test_discriminative_rates(make):
    model = made(make)
    optimizer = mobilenet_zoo.discriminative_rates(keras.optimizers.SGD(1.0), model, 0.5)
    optimizer.build(model.trainable_variables)
    rates = {
        variable.path: factor
        for variable, factor in zip(model.trainable_variables, optimizer._factors, strict=True)
        if variable.path.endswith("kernel")
    }
    found = {name: next(rate for path, rate in rates.items() if name in path) for name in ("stem", "stage1", "stage2")}
    assert found == {"stem": 0.5**3, "stage1": 0.5**2, "stage2": 0.5}
    assert next(rate for path, rate in rates.items() if "own_top" in path or "classifier" in path) == 1.0


@each_graph
def test_preprocessing_is_that_of_the_body(make):
    name = next(name for name in WEIGHTS if "ra4" in name or "in1k" in name)
    assert WEIGHTS[name].mean != (0.5, 0.5, 0.5)
    model = make()
    inner(model).name = name  # as one that was built from those weights is called
    found = mobilenet_zoo.preprocessing(model)
    assert (found.mean, found.std, found.size) == (WEIGHTS[name].mean, WEIGHTS[name].std, (SIZE, SIZE))
    assert mobilenet_zoo.class_names_of(model) is None


@each_graph
def test_a_body_that_normalizes_gets_pixels(make):
    assert mobilenet_zoo.preprocessing(make(include_preprocessing=True)).mean is None
    assert mobilenet_zoo.preprocessing(make()).mean is not None


def test_a_rescaling_before_the_body_makes_it_take_pixels():
    image = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(image, top(body(include_top=False)(keras.layers.Rescaling(1 / 127.5, -1)(image))))
    assert mobilenet_zoo.preprocessing(model).mean is None


@each_graph
def test_save_and_load_as_a_folder(make, tmp_path):
    model, x, names = made(make), images(2, SIZE, SIZE, 3), ["ant", "bee", "cat"]
    folder = mobilenet_zoo.save_pretrained(model, tmp_path / "saved", class_names=names)
    found = mobilenet_zoo.from_pretrained(folder)
    np.testing.assert_array_equal(predicted(found, x), predicted(model, x))
    assert mobilenet_zoo.class_names_of(found) == names
    assert "pipeline_tag: image-classification" in (folder / "README.md").read_text()
    decoded = mobilenet_zoo.decode_predictions(predicted(found, x), 1, class_names=names)
    assert decoded[0][0].name == names[int(predicted(model, x)[0].argmax())]


@each_graph
def test_grad_cam(make):
    model, x = made(make), images(2, SIZE, SIZE, 3)
    maps, logits = grad_cam(model, x)
    assert maps.shape == (2, 8, 8) and maps.max() > 0
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    close(exponentials / exponentials.sum(-1, keepdims=True), predicted(model, x), 1e-4)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), "uint8"))
    assert 0 <= explain(model, image).probability <= 1


@each_graph
def test_evaluate(make):
    found = evaluate(randomize(make()), tiny.examples(6), class_names=tiny.CLASSES, speed=False)
    assert found.probabilities.shape == (6, 3)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-5)
    assert found.costs["parameters"] == mobilenet_zoo.profile(make()).parameters


def test_evaluate_turns_the_logits_of_a_body_into_probabilities():
    found = evaluate(made(whole, classifier_activation=None), tiny.examples(6), class_names=tiny.CLASSES, speed=False)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-5)


@each_graph
def test_features(make):
    """What the last pool gives: that of one's own, or that within the classifier."""
    model, x = made(make), images(2, SIZE, SIZE, 3)
    found = predicted(feature_model(model), x)
    assert found.shape == (2, 16)
    within = inner(model)
    maps = keras.Model(within.input, within.get_layer("head_conv").output)
    expected = array(maps(x)).mean((1, 2))
    if make is shared:
        expected = (expected + array(maps(x.transpose(0, 2, 1, 3))).mean((1, 2))) / 2
    close(found, expected, 1e-5)


def test_features_of_a_body_with_a_pool_and_a_top_of_ones_own():
    image = keras.Input((SIZE, SIZE, 3))
    inside = body(include_top=False, pooling="avg")
    model = randomize(keras.Model(image, keras.layers.Dense(CLASSES, "softmax")(inside(image))))
    x = images(2, SIZE, SIZE, 3)
    close(predicted(feature_model(model), x), predicted(inside, x), 1e-6)


@each_graph
def test_the_head_alone(make):
    model = make()
    before = [weight.path for weight in model.trainable_weights]
    set_head_alone(model, True)
    alone = {weight.path.rpartition("/")[0].rpartition("/")[2] for weight in model.trainable_weights}
    assert alone == {"head_conv", "classifier" if make is whole else "own_top"}
    set_head_alone(model, False)
    assert [weight.path for weight in model.trainable_weights] == before


@each_graph
def test_what_training_puts_around_it(make):
    model = made(make)
    recipe = load_recipe({"optimizer": {"layer_decay": 0.5}})
    compile_model(model, recipe, 2, metrics=())
    assert Distiller(model, made(make)).student is model
    assert rematerialize(model) == 2


# --- what doesn't, and says so ---------------------------------------------------------------------------------------


@each_graph
def test_checkpoints_are_for_the_body(make, tmp_path):
    model = make()
    expression = "model.get_layer('middle').get_layer('body')" if make is two_deep else "model.get_layer('body')"
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
    assert f"no classifier of its own. It wraps a MobileNet: pass {expression}, or put new" in str(error.value)


def test_a_body_that_get_layer_does_not_reach_is_named(tmp_path):
    frames = keras.Input((2, SIZE, SIZE, 3))
    model = keras.Model(frames, keras.layers.TimeDistributed(body(include_top=False))(frames), name="outer")
    for call in (
        lambda: mobilenet_zoo.export_checkpoint(model, tmp_path / "out.safetensors"),
        lambda: mobilenet_zoo.reset_classifier(model, 5),
    ):
        with pytest.raises(ValueError, match="It wraps a MobileNet: pass that, 'body'"):
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
def test_a_subclassed_model_has_no_graph(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as error:
        call(Subclassed())
    expected = "takes functional and Sequential models, and outer, a Subclassed, is neither. It wraps a MobileNet"
    assert f"{expected}: pass model.get_layer('body')." in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_subclassed_model_can_be_frozen_and_has_rates():
    model = Subclassed()
    assert mobilenet_zoo.freeze_batch_norm(model) == 4
    assert mobilenet_zoo.discriminative_rates("sgd", model).rates["stem"] < 1


def test_a_sequential_model_that_is_not_built():
    model = keras.Sequential([keras.layers.Dense(3)], name="unbuilt")
    with pytest.raises(ValueError, match="profile takes models that are built: start unbuilt with a keras.Input"):
        mobilenet_zoo.profile(model)


def test_kernels_that_are_not_counted_are_named():
    image = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(image, keras.layers.SeparableConv2D(4, 3, name="separable")(body(include_top=False)(image)))
    with pytest.warns(UserWarning, match=r"no multiply-accumulates for separable \(SeparableConv2D\)"):
        mobilenet_zoo.profile(model)
