"""Helpers of the tests of `export`: small models, images, and replacements of `process.run`."""

import shutil
from pathlib import Path

import keras
import numpy as np

from mobilenet_common import Architecture
from mobilenet_common.architecture import Conv, Head, Universal
from mobilenet_common.facts import Facts, remember
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.exporting import process, worker
from mobilenet_zoo.exporting.job import Result
from mobilenet_zoo.exporting.prepared import prepare
from tests import seeded
from tests.references import infer
from tests.seeded import randomized

ORIGINAL_RUN = process.run
SIZE, CLASSES = 32, 5
FILE_NAMES = {"litert": "a.tflite", "onnx": "a.onnx", "openvino": "a.xml", "torch": "a.pt2", "saved_model": "folder"}
NAMES = ("ant", "bee", "cat", "dog", "eel")
TINY = Architecture(
    name="tiny",
    stem=Conv(8, stride=2),
    stages=(
        (Universal(3, 3, 16, 8), Universal(0, 3, 16, 8)),
        (Universal(0, 5, 24, 16, 2), Universal(0, 3, 32, 16)),
    ),
    head=Head(conv=Conv(32, kernel=1)),
)


def tiny(**options):
    """Return a model of four blocks."""
    shape = options.pop("input_shape", (SIZE, SIZE, 3))
    return randomized(create_mobilenetv4(TINY, CLASSES, shape, **options))


def small_v3():
    """Return a narrow MobileNetV3."""
    options = {"width_multiplier": 0.35, "norm_momentum": 0.0}
    return with_batch_statistics(create_mobilenetv3("small", CLASSES, (SIZE, SIZE, 3), **options), images(8))


def with_batch_statistics(model, x):
    """Give `model` seeded weights and the batch statistics of the images `x`, so that its outputs depend on images.

    The momentum of its normalization must be 0, so that one batch is enough.
    """
    randomized(model)
    model(x, training=True)
    return model


def with_head(*layers, **options):
    """Return a body followed by `layers`, which are not part of this library."""
    body = tiny(include_top=False, **options)
    y = body.output
    for layer in layers:
        y = layer(y)
    return randomized(keras.Model(body.input, y, name="own"))


def with_facts(model):
    """Give `model` image facts, class names and the name of published weights."""
    base = "mobilenetv4_conv_small.e2400_r224_in1k"
    facts = Facts((SIZE, SIZE), 0.9, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), NAMES, base)
    return remember(model, facts)


def prepared_copy(model, size=(SIZE, SIZE), data_format="channels_last", **options):
    """Return the copy of `model` that is exported, for batches of any size."""
    return prepare(model, batch_size=None, image_size=size, data_format=data_format, **options)


def images(count=3, height=SIZE, width=SIZE, channels=3):
    """Return `count` different images of shape `(count, height, width, channels)`."""
    return np.concatenate([seeded.image(height + i, width, channels)[:, :height] for i in range(count)])


def predict(model, x):
    """Return the outputs of a model of any data format; both the images and the outputs are channels last."""
    channels_first = is_channels_first(model, x)
    outputs = infer(model, np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if channels_first else x)
    to_channels_last = lambda y: y.transpose(0, 2, 3, 1) if channels_first and y.ndim == 4 else y  # noqa: E731
    return keras.tree.map_structure(lambda y: to_channels_last(y).astype("float32"), outputs)


def is_channels_first(model, x):
    return model.inputs[0].shape[1] == x.shape[-1]


def relative_deviation(outputs, expected):
    """Return the largest difference as a fraction of the largest expected value."""
    assert outputs.shape == expected.shape
    return np.abs(outputs - expected).max() / np.abs(expected).max()


def run_here(backend, model_file, modules, jobs, folder):
    """Replace `process.run`: write in this process if `backend` is its backend, else in a child process."""
    if backend != keras.backend.backend():
        return ORIGINAL_RUN(backend, model_file, modules, jobs, folder)
    model = keras.saving.load_model(model_file, compile=False)
    return [worker.write(model, job) for job in jobs]


def write_dummy_files(backend, model_file, modules, jobs, folder):
    """Replace `process.run`: write files that contain only a few bytes."""
    for job in jobs:
        path = Path(job.path)
        for file in [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]:
            file.write_bytes(b"new")
    return [Result("NCHW", 3) for _ in jobs]


def run_that_copies(source):
    """Return a replacement of `process.run` that copies the file `source`."""

    def run(backend, model_file, modules, jobs, folder):
        for job in jobs:
            shutil.copy(source, job.path)
        return [Result("NCHW", 3) for _ in jobs]

    return run


def names_in(folder):
    """Return the sorted names of everything in a folder."""
    return sorted(path.name for path in folder.iterdir())


def fail_if_called(*args):
    """Replace a function that must not be called."""
    raise AssertionError("this function must not be called")
