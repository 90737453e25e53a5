"""`freeze_batch_norm`: only batch norm is frozen, with the semantics of Keras's own layer."""

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.architecture import Architecture, Attention, Conv, Dense, Fused, Head, Inverted, Universal
from mobilenet_common.layers import ConvNormActivation
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v4 import create_mobilenetv4
from tests.created import array, images, layers_of, randomize

COMPILE_OPTIONS = {"jit_compile": keras.backend.backend() == "jax"}
# Every kind of block with normalization: pointwise, depthwise, strided and dense convolutions.
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
    """Return a nested model with Keras's batch norm and the batch norm of this library."""
    body = create_mobilenetv4(TINY, input_shape=(32, 32, 3), include_top=False, pooling="avg", name="body")
    x = keras.layers.BatchNormalization(name="own_norm")(body.output)
    inner = keras.Model(body.input, x, name="inner")
    image = keras.Input((32, 32, 3))
    top = keras.layers.Dense(3, "softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), name="top")
    return randomize(keras.Model(image, top(inner(image)), name="outer"))


def values(model):
    return {f"{i} {variable.path}": array(variable).copy() for i, variable in enumerate(model.weights)}


def train(model, steps=2):
    """Train a model; return the names of the variables that changed, and the names of the others."""
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", **COMPILE_OPTIONS)
    before = values(model)
    x, y = images(8, 32, 32, 3), np.arange(8) % 3
    model.fit(x, y, batch_size=4, epochs=steps // 2, verbose=0)
    after = values(model)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    return changed, before.keys() - changed


def is_norm(name):
    return name.rpartition("/")[2] in NORM


@pytest.mark.parametrize("build", [tiny, nested])
def test_training_changes_everything_but_batch_norm(build):
    model = build()
    assert mobilenet_zoo.freeze_batch_norm(model) > 5
    changed, unchanged = train(model)
    assert unchanged and all(is_norm(name) for name in unchanged)
    assert changed and not any(is_norm(name) for name in changed)


@pytest.mark.neutral
def test_unfrozen_batch_norm_trains_again():
    model = nested()
    mobilenet_zoo.freeze_batch_norm(model)
    mobilenet_zoo.freeze_batch_norm(model, False)
    changed, unchanged = train(model)
    # An offset that is followed by a linear convolution and another batch norm has no gradient.
    assert all(name.endswith("/beta") for name in unchanged)
    assert sum(map(is_norm, changed)) > 40


def test_frozen_layers_compute_in_training_as_in_inference():
    model, x = tiny(), images(4, 32, 32, 3)
    difference = array(model(x, training=True)) - array(model(x, training=False))
    mobilenet_zoo.freeze_batch_norm(model)
    np.testing.assert_array_equal(array(model(x, training=True)), array(model(x, training=False)))
    assert np.abs(difference).max() > 1e-3  # Without freezing, training and inference differ.


def train_one_step(model, x):
    """Train for one step, large enough to be measured in the float32 weights."""
    model.compile(keras.optimizers.SGD(100.0), "mean_squared_error", **COMPILE_OPTIONS)
    model.train_on_batch(x, np.zeros((len(x), *model.output_shape[1:]), "float32"))


@pytest.mark.neutral
def test_training_step_equals_keras_applications():
    """Compare only the stem and the first three blocks, which compile in seconds."""
    full_reference = randomize(keras.applications.MobileNetV2((32, 32, 3), 0.35, weights=None, classes=5))
    model = create_mobilenetv2("0.35", 5, (32, 32, 3))
    mobilenet_zoo.load_checkpoint(
        model, {weight.path: array(weight) for weight in full_reference.weights}, layout="keras"
    )
    reference = keras.Model(full_reference.input, full_reference.get_layer("block_2_add").output)
    model = keras.Model(model.input, model.get_layer("stage2_block2").output)
    for layer in reference.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    mobilenet_zoo.freeze_batch_norm(model)
    assert len(model.trainable_weights) == len(reference.trainable_weights) == 9  # the kernels
    x = images(4, 32, 32, 3)
    before = [array(weight).copy() for weight in reference.trainable_weights]
    train_one_step(reference, x)
    train_one_step(model, x)
    for old, expected, actual in zip(before, reference.trainable_weights, model.trainable_weights, strict=True):
        step, difference = array(expected) - old, array(actual).reshape(old.shape) - array(expected)
        assert np.linalg.norm(step) > 1e-2 * np.linalg.norm(old)
        assert np.linalg.norm(difference) <= 1e-5 * np.linalg.norm(step), expected.path


def norm_trainable_flags(model):
    return [layer.norm_trainable for layer in layers_of(model) if getattr(layer, "normalization", None)]


def save_and_load(model, path):
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras")


def save_as_folder(model, path):
    return mobilenet_zoo.from_pretrained(mobilenet_zoo.save_pretrained(model, path / "folder"))


@pytest.mark.across
@pytest.mark.parametrize(
    "copy",
    [
        save_and_load,
        save_as_folder,
        lambda model, path: keras.models.clone_model(model),
        lambda model, path: mobilenet_zoo.reset_classifier(model, 3),
    ],
    ids=["save", "save_pretrained", "clone", "reset_classifier"],
)
def test_copied_model_stays_frozen(copy, tmp_path):
    model = tiny()
    mobilenet_zoo.freeze_batch_norm(model)
    copied = copy(model, tmp_path)
    assert not any(norm_trainable_flags(copied))
    assert [weight.path for weight in copied.trainable_weights] == [weight.path for weight in model.trainable_weights]
    assert [weight.path for weight in copied.weights] == [weight.path for weight in tiny().weights]
    x = images(4, 32, 32, 3)
    np.testing.assert_array_equal(array(copied(x, training=True)), array(copied(x, training=False)))


@pytest.mark.across
def test_batch_norm_stays_frozen_when_model_is_unfrozen():
    model = tiny()
    mobilenet_zoo.freeze_batch_norm(model)
    model.trainable = False
    assert not model.trainable_weights
    model.trainable = True
    assert not any(norm_trainable_flags(model))
    assert not [weight.path for weight in model.trainable_weights if is_norm(weight.path)]


@pytest.mark.across
def test_unfreezing_batch_norm_keeps_frozen_layers_frozen():
    model = nested()
    model.get_layer("inner").trainable = False
    mobilenet_zoo.freeze_batch_norm(model)
    mobilenet_zoo.freeze_batch_norm(model, False)
    assert [weight.path for weight in model.trainable_weights] == ["top/kernel", "top/bias"]
    assert not model.get_layer("inner").get_layer("own_norm").trainable


@pytest.mark.across
def test_frozen_model_fuses_to_the_same_outputs():
    model = tiny()
    mobilenet_zoo.freeze_batch_norm(model)
    fused, x = mobilenet_zoo.fuse(model), images(2, 32, 32, 3)
    np.testing.assert_allclose(array(fused(x)), array(model(x)), atol=1e-5)
    with pytest.raises(ValueError, match="tiny has no batch norm: freeze_batch_norm would change nothing"):
        mobilenet_zoo.freeze_batch_norm(fused)


@pytest.mark.across
def test_single_layers_can_be_frozen():
    model = tiny()
    assert mobilenet_zoo.freeze_batch_norm(model.get_layer("stem")) == 1
    assert [weight.path for weight in model.get_layer("stem").trainable_weights] == ["stem/kernel"]
    assert mobilenet_zoo.freeze_batch_norm(model.get_layer("stage1_block1")) == 1
    flags = norm_trainable_flags(model)
    assert sum(flags) == len(flags) - 4  # the stem, the block and its two layers


@pytest.mark.across
def test_wrong_arguments_raise():
    with pytest.raises(ValueError, match="model of type str is not allowed"):
        mobilenet_zoo.freeze_batch_norm("mobilenetv4_conv_small")
    with pytest.raises(ValueError, match="frozen='no' is not allowed: it must be True or False"):
        mobilenet_zoo.freeze_batch_norm(tiny(), "no")
    with pytest.raises(ValueError, match="has no batch norm"):
        mobilenet_zoo.freeze_batch_norm(tiny(normalization="group"))
    with pytest.raises(ValueError, match="norm_trainable='yes' is not allowed"):
        ConvNormActivation(8, norm_trainable="yes")


# --- Keras's flag `trainable` -----------------------------------------------------------------------------------------


@pytest.mark.across
@pytest.mark.parametrize("copy", [save_and_load, lambda model, path: keras.models.clone_model(model)])
def test_copied_layers_with_trainable_false_stay_frozen(copy, tmp_path):
    """Sublayers, which are created when a layer is built, are frozen too."""
    model = tiny()
    for layer in model.layers:
        layer.trainable = layer.name == "classifier"
    copied = copy(model, tmp_path)
    assert [weight.path for weight in copied.trainable_weights] == ["classifier/kernel", "classifier/bias"]
    before = values(copied)
    copied(images(4, 32, 32, 3), training=True)
    assert all(np.array_equal(before[name], value) for name, value in values(copied).items())
