"""Batch norm is frozen, alone, as Keras freezes its own."""

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.architecture import Architecture, Attention, Conv, Dense, Fused, Head, Inverted, Universal
from mobilenet_common.layers import ConvNormActivation
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v4 import create_mobilenetv4
from tests.created import array, images, layers_of, randomize

COMPILED = {"jit_compile": keras.backend.backend() == "jax"}
# Each kind of block that normalizes, with its pointwise, depthwise, strided and dense convolutions.
TINY = Architecture(
    name="tiny",
    stem=Conv(8, stride=2),
    stages=(
        (Fused(3, 16, 8), Inverted(3, 16, 8, 0.5)),
        (Universal(3, 3, 16, 16, 2), Attention(16, 2, 4, kv_kernel=3, kv_stride=2)),
    ),
    head=Head(Conv(24, 1), Dense(32)),
)
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def tiny(**options):
    return randomize(create_mobilenetv4(TINY, 3, (32, 32, 3), dropout_rate=0, **options))


def nested():
    """A model within a model, with Keras's own batch norm beside ours."""
    body = create_mobilenetv4(TINY, input_shape=(32, 32, 3), include_top=False, pooling="avg", name="body")
    x = keras.layers.BatchNormalization(name="own_norm")(body.output)
    inner = keras.Model(body.input, x, name="inner")
    image = keras.Input((32, 32, 3))
    top = keras.layers.Dense(3, "softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), name="top")
    return randomize(keras.Model(image, top(inner(image)), name="outer"))


def values(model):
    return {f"{i} {variable.path}": array(variable).copy() for i, variable in enumerate(model.weights)}


def trained(model, steps=2):
    """The names of the variables that training moved, and of those that it did not."""
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", **COMPILED)
    before = values(model)
    x, y = images(8, 32, 32, 3), np.arange(8) % 3
    model.fit(x, y, batch_size=4, epochs=steps // 2, verbose=0)
    after = values(model)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    return moved, before.keys() - moved


def is_norm(name):
    return name.rpartition("/")[2] in NORM


@pytest.mark.parametrize("make", [tiny, nested])
def test_training_leaves_every_number_of_batch_norm_and_moves_all_others(make):
    model = make()
    assert mobilenet_zoo.freeze_batch_norm(model) > 5
    moved, kept = trained(model)
    assert kept and all(is_norm(name) for name in kept)
    assert moved and not any(is_norm(name) for name in moved)


@pytest.mark.neutral
def test_it_learns_again():
    model = nested()
    mobilenet_zoo.freeze_batch_norm(model)
    mobilenet_zoo.freeze_batch_norm(model, False)
    moved, kept = trained(model)
    # The offset of what a linear convolution and another batch norm follow has no gradient.
    assert all(name.endswith("/beta") for name in kept)
    assert sum(map(is_norm, moved)) > 40


def test_frozen_layers_compute_in_training_what_they_do_in_inference():
    model, x = tiny(), images(4, 32, 32, 3)
    free = array(model(x, training=True)) - array(model(x, training=False))
    mobilenet_zoo.freeze_batch_norm(model)
    np.testing.assert_array_equal(array(model(x, training=True)), array(model(x, training=False)))
    assert np.abs(free).max() > 1e-3  # which tells the two apart


def one_step(model, x):
    """A step so wide that float32 holds it next to the weights."""
    model.compile(keras.optimizers.SGD(100.0), "mean_squared_error", **COMPILED)
    model.train_on_batch(x, np.zeros((len(x), *model.output_shape[1:]), "float32"))


@pytest.mark.neutral
def test_a_step_is_that_of_keras_applications_under_the_usual_loop():
    """On the stem and the first three blocks, which compile in seconds."""
    whole = randomize(keras.applications.MobileNetV2((32, 32, 3), 0.35, weights=None, classes=5))
    ours = create_mobilenetv2("0.35", 5, (32, 32, 3))
    mobilenet_zoo.load_checkpoint(ours, {weight.path: array(weight) for weight in whole.weights}, layout="keras")
    theirs = keras.Model(whole.input, whole.get_layer("block_2_add").output)
    ours = keras.Model(ours.input, ours.get_layer("stage2_block2").output)
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    mobilenet_zoo.freeze_batch_norm(ours)
    assert len(ours.trainable_weights) == len(theirs.trainable_weights) == 9  # the kernels
    x = images(4, 32, 32, 3)
    before = [array(weight).copy() for weight in theirs.trainable_weights]
    one_step(theirs, x)
    one_step(ours, x)
    for old, their, our in zip(before, theirs.trainable_weights, ours.trainable_weights, strict=True):
        step, difference = array(their) - old, array(our).reshape(old.shape) - array(their)
        assert np.linalg.norm(step) > 1e-2 * np.linalg.norm(old)
        assert np.linalg.norm(difference) <= 1e-5 * np.linalg.norm(step), their.path


def frozen_norms(model):
    return [layer.norm_trainable for layer in layers_of(model) if getattr(layer, "normalization", None)]


def saved_and_loaded(model, path):
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras")


def saved_as_a_folder(model, path):
    return mobilenet_zoo.from_pretrained(mobilenet_zoo.save_pretrained(model, path / "folder"))


@pytest.mark.across
@pytest.mark.parametrize(
    "again",
    [
        saved_and_loaded,
        saved_as_a_folder,
        lambda model, path: keras.models.clone_model(model),
        lambda model, path: mobilenet_zoo.reset_classifier(model, 3),
    ],
    ids=["save", "save_pretrained", "clone", "reset_classifier"],
)
def test_it_stays_frozen_in(again, tmp_path):
    model = tiny()
    mobilenet_zoo.freeze_batch_norm(model)
    found = again(model, tmp_path)
    assert not any(frozen_norms(found))
    assert [weight.path for weight in found.trainable_weights] == [weight.path for weight in model.trainable_weights]
    assert [weight.path for weight in found.weights] == [weight.path for weight in tiny().weights]
    x = images(4, 32, 32, 3)
    np.testing.assert_array_equal(array(found(x, training=True)), array(found(x, training=False)))


@pytest.mark.across
def test_it_stays_frozen_when_everything_else_thaws():
    model = tiny()
    mobilenet_zoo.freeze_batch_norm(model)
    model.trainable = False
    assert not model.trainable_weights
    model.trainable = True
    assert not any(frozen_norms(model))
    assert not [weight.path for weight in model.trainable_weights if is_norm(weight.path)]


@pytest.mark.across
def test_thawing_leaves_frozen_layers_frozen():
    model = nested()
    model.get_layer("inner").trainable = False
    mobilenet_zoo.freeze_batch_norm(model)
    mobilenet_zoo.freeze_batch_norm(model, False)
    assert [weight.path for weight in model.trainable_weights] == ["top/kernel", "top/bias"]
    assert not model.get_layer("inner").get_layer("own_norm").trainable


@pytest.mark.across
def test_a_frozen_model_fuses_to_the_same_function():
    model = tiny()
    mobilenet_zoo.freeze_batch_norm(model)
    fused, x = mobilenet_zoo.fuse(model), images(2, 32, 32, 3)
    np.testing.assert_allclose(array(fused(x)), array(model(x)), atol=1e-5)
    with pytest.raises(ValueError, match="tiny has no batch norm: freeze_batch_norm would change nothing"):
        mobilenet_zoo.freeze_batch_norm(fused)


@pytest.mark.across
def test_a_layer_alone():
    model = tiny()
    assert mobilenet_zoo.freeze_batch_norm(model.get_layer("stem")) == 1
    assert [weight.path for weight in model.get_layer("stem").trainable_weights] == ["stem/kernel"]
    assert mobilenet_zoo.freeze_batch_norm(model.get_layer("stage1_block1")) == 1
    assert sum(frozen_norms(model)) == len(frozen_norms(model)) - 4  # the stem, the block and the two in it


@pytest.mark.across
def test_arguments_that_are_not_allowed():
    with pytest.raises(ValueError, match="model of type str is not allowed"):
        mobilenet_zoo.freeze_batch_norm("mobilenetv4_conv_small")
    with pytest.raises(ValueError, match="frozen='no' is not allowed: it must be True or False"):
        mobilenet_zoo.freeze_batch_norm(tiny(), "no")
    with pytest.raises(ValueError, match="has no batch norm"):
        mobilenet_zoo.freeze_batch_norm(tiny(normalization="group"))
    with pytest.raises(ValueError, match="norm_trainable='yes' is not allowed"):
        ConvNormActivation(8, norm_trainable="yes")


# --- Keras's own flag -------------------------------------------------------------------------------------------------


@pytest.mark.across
@pytest.mark.parametrize("again", [saved_and_loaded, lambda model, path: keras.models.clone_model(model)])
def test_layers_that_are_frozen_as_a_whole_stay_so(again, tmp_path):
    """Their parts, which are made when they are built, know it too."""
    model = tiny()
    for layer in model.layers:
        layer.trainable = layer.name == "classifier"
    found = again(model, tmp_path)
    assert [weight.path for weight in found.trainable_weights] == ["classifier/kernel", "classifier/bias"]
    before = values(found)
    found(images(4, 32, 32, 3), training=True)
    assert all(np.array_equal(before[name], value) for name, value in values(found).items())
