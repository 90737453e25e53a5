"""One backend's part of the tests that compare backends: `python -m tests.across_worker TASK FOLDER`.

TASK is exchange, exchange-all, infer-one or infer-some. KERAS_BACKEND selects the backend. The results are written to
FOLDER, from where the tests read them.
"""

import sys
import time
from pathlib import Path

import keras
import numpy as np

import mobilenet_zoo
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4
from tests import seeded
from tests.references import infer

SIZE, CLASSES, BATCH = 64, 10, 4
TRAINED = {
    "mobilenetv2": (create_mobilenetv2, "1.0"),
    "mobilenetv3_small": (create_mobilenetv3, "small"),
    "mobilenetv4_conv_small": (create_mobilenetv4, "conv_small"),
    "mobilenetv4_hybrid_medium": (create_mobilenetv4, "hybrid_medium"),
}
QUICK_TRAINED = ("mobilenetv3_small",)  # The others take long.
SAVED = {
    "mobilenetv1": (create_mobilenetv1, "0.25"),
    "mobilenetv2": (create_mobilenetv2, "0.35"),
    "mobilenetv3": (create_mobilenetv3, "small"),
    "mobilenetv4": (create_mobilenetv4, "hybrid_medium"),
    "compact": (create_mobilenetv4, "compact_nano"),
}
QUICK_SAVED = ("mobilenetv1", "mobilenetv3", "compact")
BACKENDS = ("tensorflow", "jax", "torch")
FORMATS = ("channels_last", "channels_first")
ALL_SAVED = [(name, data_format) for name in SAVED for data_format in FORMATS]


def quick_saved(backend):
    """Return the model and data format that a backend writes in a quick run; they differ between backends."""
    turn = BACKENDS.index(backend)
    return [(QUICK_SAVED[turn], FORMATS[turn % 2])]


def randomize(model):
    """Set weights and statistics that differ in every channel, computed from the paths of the variables."""
    for variable in model.weights:
        owner, _, name = variable.path.rpartition("/")
        torch_name = {"gamma": "weight", "moving_mean": "running_mean", "moving_variance": "running_var"}.get(
            name, name
        )
        variable.assign(seeded.tensor(f"{owner}.{torch_name}", tuple(variable.shape)[::-1]).T)


def images():
    """Return four different images and their one-hot classes."""
    batch = np.concatenate([seeded.image(SIZE + i, SIZE)[:, :SIZE] for i in range(BATCH)])
    return batch, np.eye(CLASSES, dtype="float32")[[3, 1, 4, 1]]


def loss_and_gradients(model, x, y):
    """Return the loss in training mode and the gradients of the trainable variables; update the moving statistics."""
    backend = keras.backend.backend()

    def loss_of(outputs):
        return keras.ops.mean(keras.losses.categorical_crossentropy(y, outputs))

    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = loss_of(model(x, training=True))
        return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])
    if backend == "torch":
        loss = loss_of(model(x, training=True))
        loss.backward()
        return loss, [v.value.grad for v in model.trainable_variables]

    import jax

    def compute(trainable, rest):
        outputs, rest = model.stateless_call(trainable, rest, x, training=True)
        return loss_of(outputs), rest

    values = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
    (loss, rest), gradients = jax.jit(jax.value_and_grad(compute, has_aux=True))(*values)
    for variable, value in zip(model.non_trainable_variables, rest, strict=True):
        variable.assign(value)
    return loss, gradients


def write_gradients(folder, names):
    """Write loss, gradients and changes of the moving statistics of models in training mode."""
    momentum = 0.9
    x, y = images()
    for name in names:
        create, variant = TRAINED[name]
        model = create(variant, CLASSES, (SIZE, SIZE, 3), activation="silu", dropout_rate=0.0, norm_momentum=momentum)
        randomize(model)
        statistics = [v for v in model.weights if v.path.rpartition("/")[2].startswith("moving_")]
        old = [keras.ops.convert_to_numpy(v).copy() for v in statistics]
        loss, gradients = loss_and_gradients(model, x, y)
        results = {"loss": keras.ops.convert_to_numpy(loss)}
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            results[f"gradient {variable.path}"] = keras.ops.convert_to_numpy(gradient)
        for variable, before in zip(statistics, old, strict=True):
            after = keras.ops.convert_to_numpy(variable)
            results[f"statistic {variable.path}"] = (after - before) / (1 - momentum)
        np.savez(folder / f"{name}-{keras.backend.backend()}.npz", **results)


def write_models(folder, cases):
    """Save a model and its predictions for each case `(name, data format)`."""
    for name, data_format in cases:
        create, variant = SAVED[name]
        x, shape = _formatted(data_format)
        model = create(variant, CLASSES, shape, data_format=data_format)
        randomize(model)
        stem = folder / f"{keras.backend.backend()}-{name}-{data_format}"
        model.save(f"{stem}.keras")
        np.save(f"{stem}.npy", infer(model, x))


def exchange(folder):
    """Write one model's training step and save another model; then predict with the saved models of all backends."""
    write_gradients(folder, QUICK_TRAINED)
    write_models(folder, quick_saved(keras.backend.backend()))
    wait_for_others(folder)
    predict(folder)


def exchange_all(folder):
    """Like `exchange`, for every model in every data format."""
    write_gradients(folder, TRAINED)
    write_models(folder, ALL_SAVED)
    wait_for_others(folder)
    predict(folder)


def wait_for_others(folder, limit=1800):
    """Wait until every backend has written its models."""
    (folder / f"{keras.backend.backend()}.written").touch()
    end = time.monotonic() + limit
    while missing := [backend for backend in BACKENDS if not (folder / f"{backend}.written").exists()]:
        assert time.monotonic() < end, f"{missing} have not written their models within {limit} s"
        time.sleep(0.2)


def predict(folder, pattern="*.keras"):
    """Load the saved models that match `pattern`, and write this backend's predictions."""
    assert mobilenet_zoo.list_models(), "importing the zoo registers the layers"
    for path in sorted(folder.glob(pattern)):
        model = keras.saving.load_model(path, compile=False)
        x, _ = _formatted(FORMATS[model.input_shape[1] == 3])
        np.save(folder / f"{path.stem}-by-{keras.backend.backend()}.npy", infer(model, x))
        keras.utils.clear_session()


def infer_one(folder):
    """Predict with one small model, because under OpenVINO every operation is compiled separately."""
    predict(folder, "*-mobilenetv1-*.keras")


def infer_some(folder):
    """Predict with every model that PyTorch wrote."""
    predict(folder, "torch-*.keras")


def _formatted(data_format):
    x, _ = images()
    if data_format == "channels_last":
        return x, (SIZE, SIZE, 3)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), (3, SIZE, SIZE)


if __name__ == "__main__":
    tasks = {
        "exchange": exchange,
        "exchange-all": exchange_all,
        "infer-one": infer_one,
        "infer-some": infer_some,
    }
    tasks[sys.argv[1]](Path(sys.argv[2]))
