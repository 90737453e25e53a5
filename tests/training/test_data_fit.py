"""`fit`, `evaluate` and `predict` with a pipeline, whose batches follow `Pipeline.indices`."""

import keras
import numpy as np
import pytest

from mobilenet_runtime import ImageError, Preprocessing
from mobilenet_zoo.training.data import Examples, Pipeline

TRANSFORM = Preprocessing((4, 4), 1.0, "bilinear", None, None, channels=1)


def data(n=21):
    images = np.repeat(np.arange(n, dtype="uint8"), 16).reshape(n, 4, 4)
    return Examples(images, np.arange(n) % 3, tuple("abc"))


def linear():
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")])
    model.build((None, 4, 4, 1))
    model.compile(keras.optimizers.SGD(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("balance", [None, "weights"])
def test_fit_matches_train_on_batch_with_the_indices_of_the_pipeline(balance):
    pipeline = Pipeline(data(), TRANSFORM, batch_size=4, training=True, seed=3, balance=balance)
    model, reference = linear(), linear()
    reference.set_weights(model.get_weights())
    model.fit(pipeline.batches(2), steps_per_epoch=3, epochs=2, shuffle=False, verbose=0)
    counts = data().counts
    for step in range(2, 8):
        chosen = data().subset(pipeline.indices(step))
        images = TRANSFORM(list(chosen.images))
        weights = None if balance is None else (21 / 3 / counts)[chosen.labels]
        reference.train_on_batch(images, np.eye(3)[chosen.labels], sample_weight=weights)
    for weight, reference_weight in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(weight, reference_weight, rtol=1e-4, atol=1e-6)


def test_validation_and_prediction_cover_all_images_every_time():
    pipeline = Pipeline(data(), TRANSFORM, batch_size=4, training=True)
    validation = Pipeline(data(), TRANSFORM, batch_size=8, training=False)
    model, batches = linear(), validation.batches()
    expected = TRANSFORM(list(data().images))
    history = model.fit(
        pipeline.batches(),
        steps_per_epoch=2,
        epochs=2,
        validation_data=batches,
        validation_steps=validation.steps_per_epoch,
        shuffle=False,
        verbose=0,
    )
    loss = model.evaluate(expected, np.eye(3)[data().labels], verbose=0)[0]
    assert history.history["val_loss"][-1] == pytest.approx(loss, rel=1e-4)
    predictions = model.predict(batches, steps=validation.steps_per_epoch, verbose=0)
    np.testing.assert_allclose(predictions, model.predict(expected, verbose=0), rtol=1e-5)
    assert batches.kept.tolist() == list(range(21))
    assert pipeline.waited_s > 0 and validation.waited_s > 0


@pytest.mark.neutral
def test_fit_with_worker_processes_gives_the_same_weights():
    model, reference = linear(), linear()
    reference.set_weights(model.get_weights())
    for network, workers in ((model, 2), (reference, 0)):
        pipeline = Pipeline(data(), TRANSFORM, batch_size=4, training=True, workers=workers)
        network.fit(pipeline.batches(), steps_per_epoch=6, shuffle=False, verbose=0)
    for weight, reference_weight in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, reference_weight)


def test_too_many_damaged_images_stop_fit(tmp_path):
    damaged = Examples([str(tmp_path / f"{i}.jpg") for i in range(30)], np.arange(30) % 3, tuple("abc"))
    pipeline = Pipeline(damaged, TRANSFORM, batch_size=4, training=True)
    with pytest.raises(ImageError, match="11 of 30 images can't be read"):
        linear().fit(pipeline.batches(), steps_per_epoch=2, shuffle=False, verbose=0)
    assert len(pipeline.damaged) == 11
