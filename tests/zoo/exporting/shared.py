"""What the tests of `export` share: small models, images, and writing without a process of its own."""

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

CHILD = process.run
SIZE, CLASSES = 32, 5
PLACES = {"litert": "a.tflite", "onnx": "a.onnx", "openvino": "a.xml", "torch": "a.pt2", "saved_model": "folder"}
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
    """A model of four blocks."""
    shape = options.pop("input_shape", (SIZE, SIZE, 3))
    return randomized(create_mobilenetv4(TINY, CLASSES, shape, **options))


def small_v3():
    """A narrow MobileNetV3."""
    options = {"width_multiplier": 0.35, "norm_momentum": 0.0}
    return learned(create_mobilenetv3("small", CLASSES, (SIZE, SIZE, 3), **options), images(8))


def learned(model, x):
    """The model with seeded weights, and with the statistics of images, so that answers hang on them.

    Its momentum is 0, so that one batch is enough.
    """
    randomized(model)
    model(x, training=True)
    return model


def with_a_head(*layers, **options):
    """A body with somebody's own layers after it."""
    body = tiny(include_top=False, **options)
    y = body.output
    for layer in layers:
        y = layer(y)
    return randomized(keras.Model(body.input, y, name="own"))


def known(model):
    """The model as if it had come from published weights."""
    base = "mobilenetv4_conv_small.e2400_r224_in1k"
    facts = Facts((SIZE, SIZE), 0.9, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), NAMES, base)
    return remember(model, facts)


def prepared(model, size=(SIZE, SIZE), data_format="channels_last", **options):
    """The copy that is exported, for batches of any size."""
    return prepare(model, batch_size=None, image_size=size, data_format=data_format, **options)


def images(count=3, height=SIZE, width=SIZE, channels=3):
    """Different ones, `(count, height, width, channels)`."""
    return np.concatenate([seeded.image(height + i, width, channels)[:, :height] for i in range(count)])


def answers(model, x):
    """What a model of either data format answers to images that are channels last, channels last too."""
    first = first_axis_is_channels(model, x)
    outputs = infer(model, np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if first else x)
    turn = lambda y: y.transpose(0, 2, 3, 1) if first and y.ndim == 4 else y  # noqa: E731
    return keras.tree.map_structure(lambda y: turn(y).astype("float32"), outputs)


def first_axis_is_channels(model, x):
    return model.inputs[0].shape[1] == x.shape[-1]


def relative(found, expected):
    """The largest difference as a fraction of the largest value expected."""
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def here(backend, model_file, modules, jobs, folder):
    """In place of `process.run`: writes in this process what its backend can write, and in a child what it can't."""
    if backend != keras.backend.backend():
        return CHILD(backend, model_file, modules, jobs, folder)
    model = keras.saving.load_model(model_file, compile=False)
    return [worker.write(model, job) for job in jobs]


def nothing(backend, model_file, modules, jobs, folder):
    """In place of `process.run`: writes files with a few bytes in them."""
    for job in jobs:
        path = Path(job.path)
        for each in [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]:
            each.write_bytes(b"new")
    return [Result("NCHW", 3) for _ in jobs]


def copying(source):
    """In place of `process.run`: "writes" the file `source`."""

    def run(backend, model_file, modules, jobs, folder):
        for job in jobs:
            shutil.copy(source, job.path)
        return [Result("NCHW", 3) for _ in jobs]

    return run


def left(folder):
    """The names of all that is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def no_process(*args):
    """In place of `process.run`, where it must not come so far."""
    raise AssertionError("a wrong argument is found before anything is written")
