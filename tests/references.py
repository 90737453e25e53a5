"""Reference models of other implementations: the library's counterparts, and the recorded outputs."""

import functools
import gzip
import json
from pathlib import Path

import keras
import numpy as np

import mobilenet_zoo
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4
from tests import seeded
from tests.deviations import relative_deviation

FOLDER = Path(__file__).parent / "reference"
TOLERANCE = 2e-4  # relative to the largest value of each output

TORCHVISION = {
    "mobilenet_v2": (create_mobilenetv2, "1.0", 1e-5),
    "mobilenet_v3_large": (create_mobilenetv3, "large", 1e-3),
    "mobilenet_v3_small": (create_mobilenetv3, "small", 1e-3),
}
PYRAMID = {f"P{i + 1}": f"stage{i}" for i in range(5)}


@functools.cache
def checkpoints():
    """Return `{key: facts}` of every reference, with or without recorded outputs."""
    with gzip.open(FOLDER / "checkpoints.json.gz", "rt") as file:
        return json.load(file)


def keys_with_outputs():
    """Return the keys of the references whose outputs are recorded."""
    return json.loads((FOLDER / "open.json").read_text())


@functools.cache
def outputs():
    """Return the recorded outputs as `{key/size/output: array}`."""
    with np.load(FOLDER / "outputs.npz") as file:
        return dict(file)


def build(key, **options):
    """Build the library's model for a reference, with random weights."""
    source, _, name = key.partition("/")
    name, _, stride = name.partition("@output_stride=")
    if stride:
        options["output_stride"] = int(stride)
    if source == "torchvision":
        create, variant, epsilon = TORCHVISION[name]
        return create(variant, padding="symmetric", norm_epsilon=epsilon, **options)
    if source == "compact":
        return create_mobilenetv4(f"compact_{name}", **options)
    return mobilenet_zoo.create_model(name, **options)


def deviations(key, size, data_format="channels_last", compared=None):
    """Return `{output: largest difference / largest value}` of a reference's outputs at one image size.

    Args:
        key: Key of the reference.
        size: Height and width of the image.
        data_format: Data format of the library's model.
        compared: Names of the outputs to compare. All outputs by default, or if the reference has none of these.
    """
    source = key.partition("/")[0]
    state = seeded.state_dict(checkpoints()[key]["shapes"])
    prefix = f"{key}/{size[0]}x{size[1]}/"
    theirs = {name.removeprefix(prefix): value for name, value in outputs().items() if name.startswith(prefix)}
    image = seeded.image(*size)
    shape = (*size, 3)
    if data_format == "channels_first":
        image, shape = image.transpose(0, 3, 1, 2), (3, *size)
    if compared is not None and not theirs.keys().isdisjoint(compared):
        theirs = {name: value for name, value in theirs.items() if name in compared}
    spatial = (1, 2) if data_format == "channels_last" else (2, 3)
    options = {"input_shape": shape, "data_format": data_format}

    def run(**more_options):
        model = build(key, **options, **more_options)
        mobilenet_zoo.load_checkpoint(model, state, layout=source)
        return infer(model, image)

    ours = {}
    if "logits" in theirs:
        ours["logits"] = run(classifier_activation=None)
    if "features" in theirs:
        ours["features"] = run(include_top=False, pooling="avg")
    if "stage0" in theirs:
        maps = run(include_top=False, pyramid_levels=(1, 2, 3, 4, 5))
        ours |= {PYRAMID[level]: map_.mean(axis=spatial) for level, map_ in maps.items()}
    assert set(ours) == set(theirs), f"{key} has the outputs {sorted(theirs)}, but compared {sorted(ours)}"
    return {name: relative_deviation(value, theirs[name]) for name, value in ours.items()}


def infer(model, image):
    """Return the model's outputs in inference mode, as NumPy arrays."""
    if keras.backend.backend() == "jax":  # run one compiled program instead of one per operation
        import jax

        def call(trainable, non_trainable, x):
            return model.stateless_call(trainable, non_trainable, x, training=False)[0]

        values = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
        outputs = jax.jit(call)(*values, image)
    else:
        outputs = model(image, training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)
