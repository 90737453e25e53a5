"""A created model is an ordinary Keras model: config, saving, freezing and training work."""

import keras
import numpy as np
import pytest

from tests.created import (
    SIZE,
    array,
    assert_close,
    create,
    each_generation,
    images,
    predict,
    randomize,
    tiny,
)

# XLA compiles slowly under TensorFlow. Without it, JAX would run a training step operation by operation.
COMPILED = {"jit_compile": keras.backend.backend() == "jax"}


@pytest.mark.across
@each_generation
def test_config_rebuilds_the_model(generation):
    model = create(generation, input_shape=(33, 40, 3), drop_path_rate=0.1, output_stride=16)
    for copy in (keras.Model.from_config(model.get_config()), keras.models.clone_model(model)):
        assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
        assert [layer.get_config() for layer in copy.layers] == [layer.get_config() for layer in model.layers]
        assert [(w.path, w.shape) for w in copy.weights] == [(w.path, w.shape) for w in model.weights]
        assert copy.output_shape == model.output_shape


@pytest.mark.neutral
def test_clone_gives_the_same_predictions():
    model = randomize(tiny(drop_path_rate=0.1))
    x = images()
    expected = predict(model, x)
    for copy in (keras.Model.from_config(model.get_config()), keras.models.clone_model(model)):
        copy.set_weights(model.get_weights())
        assert_close(predict(copy, x), expected)


def test_saved_model_loads_without_custom_objects(tmp_path):
    model = randomize(tiny())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [v.path for v in loaded.weights] == [v.path for v in model.weights]
    x = images()
    assert_close(predict(loaded, x), predict(model, x), 1e-6)


@pytest.mark.across
@each_generation
@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_weights_argument_loads_a_saved_model(generation, name, tmp_path):
    model, path = randomize(create(generation)), tmp_path / name
    if path.suffix == ".keras":
        model.save(path)
        loaded_by_keras = keras.models.load_model(path)
    else:
        model.save_weights(path)
        loaded_by_keras = create(generation)
        loaded_by_keras.load_weights(path)
    loaded = create(generation, weights=path)
    for variable, keras_variable, expected in zip(loaded.weights, loaded_by_keras.weights, model.weights, strict=True):
        np.testing.assert_array_equal(array(variable), array(expected))
        np.testing.assert_array_equal(array(keras_variable), array(expected))


def test_num_classes_none_uses_the_class_count_of_the_weights(tmp_path):
    path = str(tmp_path / "model.keras")
    randomize(tiny(7)).save(path)
    assert tiny(None, weights=path).output_shape == (None, 7)


@pytest.mark.neutral
def test_frozen_model_does_not_change_in_training():
    model = tiny(dropout_rate=0)
    model.trainable = False
    assert model.trainable_variables == []
    before = model.get_weights()
    assert_close(model(images(), training=True), model(images(), training=False))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.neutral
def test_frozen_block_keeps_weights_and_statistics_in_training():
    model = tiny(dropout_rate=0)
    frozen = ("stem", "stage2_block2")
    for name in frozen:
        model.get_layer(name).trainable = False
    before = {layer.name: layer.get_weights() for layer in model.layers}
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", **COMPILED)
    model.fit(images(8, SIZE, SIZE, 3), np.arange(8) % 4, batch_size=4, verbose=0)
    for layer in model.layers:
        changed = [(old != new).any() for old, new in zip(before[layer.name], layer.get_weights(), strict=True)]
        if layer.name in frozen:
            assert changed and not any(changed)
        elif changed:
            assert np.mean(changed) > 0.5, layer.name


@pytest.mark.neutral
@pytest.mark.parametrize(
    "generation", ["v4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("v1", "v2", "v3"))]
)
def test_fit_lowers_the_loss(generation):
    # Images of two classes, which differ in whether the top or the bottom half is bright.
    x = 0.1 * images(16, SIZE, SIZE, 3)
    x[::2, : SIZE // 2] += 1
    x[1::2, SIZE // 2 :] += 1
    y = keras.utils.to_categorical(np.arange(16) % 2, 2)
    model = create(generation, 2, width_multiplier=0.25, dropout_rate=0)
    model.compile(keras.optimizers.Adam(2e-3), "categorical_crossentropy", **COMPILED)
    losses = model.fit(x, y, batch_size=16, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_gradients_reach_every_trainable_variable():
    model = tiny(dropout_rate=0)
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy", **COMPILED)
    before = [array(v) for v in model.trainable_variables]
    model.train_on_batch(images(4, SIZE, SIZE, 3), np.array([0, 1, 2, 3]))
    unchanged = [v.path for v, old in zip(model.trainable_variables, before, strict=True) if (array(v) == old).all()]
    assert unchanged == []
