"""Reads Keras's weights files: `.keras`, `.weights.h5`, and the `.h5` files of Keras 2."""

import json
import zipfile

import h5py

from mobilenet_common.checkpoints.refusals import MOST_BYTES, damaged, too_large
from mobilenet_common.errors import ArgumentError, CheckpointError

_MOST_BYTES_OF_WEIGHTS = 4 * MOST_BYTES  # includes the variables of an optimizer and of a user's layers
_NOT_READABLE = (OSError, KeyError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile, EOFError)

_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
_NOT_LAYERS = ("vars", "optimizer")


def read_h5(path):
    """Return the tensors of an HDF5 file, `{"layer/0": array}`; those of nested layers are `"model/block/layer/0"`."""
    try:
        with h5py.File(path, "r") as file:
            return _tensors(file)
    except CheckpointError:
        raise
    except _NOT_READABLE as error:
        raise damaged(path, "Keras", error) from None


def read_keras(path):
    """Return the tensors of a `.keras` file, with the same names as `read_h5`."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member:
            size = archive.getinfo("model.weights.h5").file_size
            if size > _MOST_BYTES_OF_WEIGHTS:  # A small archive can contain a large compressed member.
                raise CheckpointError(
                    f"{path} was not read: its weights of {size:,} bytes are too large for a MobileNet."
                )
            with h5py.File(member, "r") as file:
                return _tensors(file)
    except CheckpointError:
        raise
    except Exception as error:  # A damaged member can raise zlib.error and various errors of h5py.
        raise damaged(path, "Keras", error) from None


def layer_configs(path):
    """Return the `(class name, config)` of each layer of the model in a file; nested layers follow their model.

    The result is empty for files without a model configuration, such as `.weights.h5`. Malformed entries of the
    configuration are skipped.
    """
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                text = file.attrs.get("model_config", "{}")
        else:
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("config.json").file_size > MOST_BYTES:
                    return []
                text = archive.read("config.json")
        return list(_layers(json.loads(text)))
    except (*_NOT_READABLE, RecursionError):
        return []


def stem_attributes(path):
    """Return the `padding` and `norm_epsilon` that the stem recorded in a `.weights.h5` file; see `layers.records`."""
    attributes = {}

    def visit(_, group):
        if not attributes and {"padding", "norm_epsilon"} <= group.attrs.keys():
            attributes.update(padding=str(group.attrs["padding"]), norm_epsilon=float(group.attrs["norm_epsilon"]))

    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                file.visititems(visit)
    except _NOT_READABLE:
        return {}
    return attributes


def _layers(model):
    config = model.get("config") if isinstance(model, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else None
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict) and isinstance(layer.get("config"), dict):
            yield layer.get("class_name"), layer["config"]
            yield from _layers(layer)


def _tensors(file):
    for root in (file, file.get("model_weights")):
        if root is not None and "layer_names" in root.attrs:
            return _legacy_tensors(root)
    tensors = {}
    for key, group in file.items():  # A subclassed model also has layers outside the group "layers".
        if isinstance(group, h5py.Group) and key not in _NOT_LAYERS:
            _collect(group, "", tensors)
    return tensors


def _collect(group, parent, tensors):
    """Add the variables of a Keras 3 layer and of its nested layers to `tensors`, under the layers' names."""
    variables, key = group.get("vars"), group.name.rsplit("/", 1)[-1]
    name = variables.attrs.get("name") if variables is not None else None
    # The group "layers" of a model is a container and not part of the layers' names.
    path = parent if variables is None and key in _CONTAINERS else f"{parent}/{name or key}".lstrip("/")
    if variables is not None and "seed_generator" not in group.name:
        for index, data in variables.items():
            tensors[f"{path}/{index}"] = _array(data)
    for key, child in group.items():
        if key not in _NOT_LAYERS and isinstance(child, h5py.Group):
            _collect(child, path, tensors)


def _legacy_tensors(root):
    """Return the tensors of a file in the format of Keras 2, which keras.applications still publishes.

    The format lists the weights of each layer by name. A nested model counts as one layer, and so does a layer that
    contains other layers.
    """
    tensors = {}
    for layer in _strings(root.attrs["layer_names"]):
        weights = _strings(root[layer].attrs["weight_names"])
        owners = [weight.rpartition("/")[0] for weight in weights]
        counts = dict.fromkeys(owners, 0)
        for weight, owner in zip(weights, owners, strict=True):
            path = layer
            if len(counts) > 1:
                path = owner if f"{owner}/".startswith(f"{layer}/") else f"{layer}/{owner}"
            tensors[f"{path}/{counts[owner]}"] = _array(root[layer][weight])
            counts[owner] += 1
    return tensors


def _strings(names):
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _array(data):
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise ArgumentError(f"{data.name} is not stored as an array in this file")
    if data.nbytes > MOST_BYTES:  # A file can declare a larger array than it contains.
        raise too_large("The file", data.name, data.shape)
    array = data[()]
    if data.attrs.get("dtype") == "bfloat16":
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16).astype("float32")
    return array
