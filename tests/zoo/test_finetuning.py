"""`discriminative_rates`: learning rates that differ from layer to layer."""

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.architecture import Architecture, Conv, Head, Inverted
from mobilenet_v2 import create_mobilenetv2

TINY = Architecture(
    name="tiny",
    stem=Conv(8, stride=2),
    stages=((Inverted(3, 16, 8, stride=2),), (Inverted(3, 16, 8),)),
    head=Head(Conv(16, 1)),
)


def changes(model, before):
    """Return `{path of a variable: largest change}`."""
    return {
        variable.path: np.abs(keras.ops.convert_to_numpy(variable) - old).max()
        for variable, old in zip(model.trainable_weights, before, strict=True)
    }


def train_one_step(optimizer):
    """Train a model for one step with `optimizer(model)`; return the model and the change of each variable."""
    keras.utils.set_random_seed(0)
    model = create_mobilenetv2(TINY, 3, (32, 32, 3), dropout_rate=0)
    options = {"jit_compile": keras.backend.backend() == "jax"}
    model.compile(optimizer(model), "sparse_categorical_crossentropy", **options)
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.trainable_weights]
    x = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")
    model.train_on_batch(x, np.arange(8) % 3)
    return model, changes(model, before)


@pytest.mark.parametrize(
    "build", [keras.optimizers.SGD, pytest.param(keras.optimizers.Adam, marks=pytest.mark.neutral)], ids=["SGD", "Adam"]
)
def test_stages_change_in_proportion_to_their_rates(build):
    """The first step of both optimizers is proportional to the learning rate."""
    _, plain = train_one_step(lambda model: build(0.01))
    _, scaled = train_one_step(lambda model: mobilenet_zoo.discriminative_rates(build(0.01), model, 0.5))
    for layer, factor in (("classifier", 1), ("head_conv", 1), ("stage2_block1", 0.5), ("stage1_block1", 0.5**2)):
        for path in (path for path in plain if path.startswith(f"{layer}/") and plain[path] > 1e-5):
            assert scaled[path] == pytest.approx(factor * plain[path], rel=2e-2, abs=1e-7), path
    assert scaled["stem/kernel"] == pytest.approx(0.5**3 * plain["stem/kernel"], rel=2e-2, abs=1e-7)


@pytest.mark.across
def test_decay_of_1_changes_nothing():
    def optimizer():
        return keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=1e-3)

    _, plain = train_one_step(lambda model: optimizer())
    _, scaled = train_one_step(lambda model: mobilenet_zoo.discriminative_rates(optimizer(), model, 1))
    for path, change in plain.items():
        assert scaled[path] == pytest.approx(change, rel=1e-3, abs=1e-6), path


@pytest.mark.neutral
def test_compiled_model_loads_and_resumes_training(tmp_path):
    model, _ = train_one_step(lambda model: mobilenet_zoo.discriminative_rates("adam", model))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.rates == model.optimizer.rates
    assert int(loaded.optimizer.iterations) == 1
    x = np.ones((2, 32, 32, 3), "float32")
    assert loaded.train_on_batch(x, np.zeros(2)) == pytest.approx(model.train_on_batch(x, np.zeros(2)), rel=1e-4)


@pytest.mark.across
@pytest.mark.parametrize(
    "optimizer, decay, match",
    [
        ("nadam", 0.5, "Nadam doesn't support layer-wise learning rates.*AdamW"),
        ("adam", 0, "decay=0"),
        ("adam", 1.5, "decay=1.5"),
    ],
)
def test_wrong_argument_raises(optimizer, decay, match):
    with pytest.raises(ValueError, match=match):
        mobilenet_zoo.discriminative_rates(optimizer, create_mobilenetv2("0.35", 3, (32, 32, 3)), decay)


@pytest.mark.across
def test_unsupported_model_raises():
    with pytest.raises(ValueError, match="not a model of this library"):
        mobilenet_zoo.discriminative_rates("adam", keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
