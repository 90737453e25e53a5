"""Keras trains on a pipeline, under each backend, and sees the order that the pipeline announces."""

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
    net = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")])
    net.build((None, 4, 4, 1))
    net.compile(keras.optimizers.SGD(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    return net


@pytest.mark.parametrize("balance", [None, "weights"])
def test_fit_is_training_on_the_announced_batches(balance):
    """As `train_on_batch` with the images that `indices` names."""
    made = Pipeline(data(), TRANSFORM, batch_size=4, training=True, seed=3, balance=balance)
    ours, theirs = linear(), linear()
    theirs.set_weights(ours.get_weights())
    ours.fit(made.batches(2), steps_per_epoch=3, epochs=2, shuffle=False, verbose=0)
    counts = data().counts
    for step in range(2, 8):
        chosen = data().subset(made.indices(step))
        images = TRANSFORM(list(chosen.images))
        weights = None if balance is None else (21 / 3 / counts)[chosen.labels]
        theirs.train_on_batch(images, np.eye(3)[chosen.labels], sample_weight=weights)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)


def test_validation_and_prediction_take_every_image_each_time():
    made = Pipeline(data(), TRANSFORM, batch_size=4, training=True)
    held_out = Pipeline(data(), TRANSFORM, batch_size=8, training=False)
    net, batches = linear(), held_out.batches()
    expected = TRANSFORM(list(data().images))
    history = net.fit(
        made.batches(),
        steps_per_epoch=2,
        epochs=2,
        validation_data=batches,
        validation_steps=held_out.steps_per_epoch,
        shuffle=False,
        verbose=0,
    )
    loss = net.evaluate(expected, np.eye(3)[data().labels], verbose=0)[0]
    assert history.history["val_loss"][-1] == pytest.approx(loss, rel=1e-4)
    found = net.predict(batches, steps=held_out.steps_per_epoch, verbose=0)
    np.testing.assert_allclose(found, net.predict(expected, verbose=0), rtol=1e-5)
    assert batches.kept.tolist() == list(range(21))
    assert made.waited_s > 0 and held_out.waited_s > 0


@pytest.mark.neutral
def test_fit_from_worker_processes():
    ours, theirs = linear(), linear()
    theirs.set_weights(ours.get_weights())
    for net, workers in ((ours, 2), (theirs, 0)):
        made = Pipeline(data(), TRANSFORM, batch_size=4, training=True, workers=workers)
        net.fit(made.batches(), steps_per_epoch=6, shuffle=False, verbose=0)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_too_many_damaged_images_end_fit(tmp_path):
    broken = Examples([str(tmp_path / f"{i}.jpg") for i in range(30)], np.arange(30) % 3, tuple("abc"))
    made = Pipeline(broken, TRANSFORM, batch_size=4, training=True)
    with pytest.raises(ImageError, match="11 of 30 images can't be read"):
        linear().fit(made.batches(), steps_per_epoch=2, shuffle=False, verbose=0)
    assert len(made.damaged) == 11
