"""Reads Keras's files of weights: `.keras`, `.weights.h5`, and `.h5` as Keras 2 wrote it."""

import json
import zipfile

import h5py

from mobilenet_common.checkpoints.refusals import MOST_BYTES, damaged, too_large
from mobilenet_common.errors import ArgumentError, CheckpointError

_MOST_BYTES_OF_WEIGHTS = 4 * MOST_BYTES  # with an optimizer's copies, and layers of the user's own
_NOT_READABLE = (OSError, KeyError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile, EOFError)

_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
_NOT_LAYERS = ("vars", "optimizer")


def read_h5(path):
    """Return `{"layer/0": array}` of an HDF5 file; a layer inside others is `"model/block/layer/0"`."""
    try:
        with h5py.File(path, "r") as file:
            return _tensors(file)
    except CheckpointError:
        raise
    except _NOT_READABLE as error:
        raise damaged(path, "Keras", error) from None


def read_keras(path):
    """Return the same of a `.keras` file."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member:
            size = archive.getinfo("model.weights.h5").file_size
            if size > _MOST_BYTES_OF_WEIGHTS:  # a compressed one may be small in the archive
                raise CheckpointError(
                    f"{path} was not read: its weights of {size:,} bytes are too large for a MobileNet."
                )
            with h5py.File(member, "r") as file:
                return _tensors(file)
    except CheckpointError:
        raise
    except Exception as error:  # zlib.error and what h5py makes of a damaged member
        raise damaged(path, "Keras", error) from None


def layer_configs(path):
    """Return `(class name, config)` of the layers of the model that a file describes, nested ones after their model.

    A file that describes none, as `.weights.h5`, gives an empty list; what is no layer in a description is left out.
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
    """Return what the stem has recorded beside its variables in a `.weights.h5` file; see `layers.records`."""
    found = {}

    def look(_, group):
        if not found and {"padding", "norm_epsilon"} <= group.attrs.keys():
            found.update(padding=str(group.attrs["padding"]), norm_epsilon=float(group.attrs["norm_epsilon"]))

    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                file.visititems(look)
    except _NOT_READABLE:
        return {}
    return found


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
    for key, group in file.items():  # a subclassed model has layers beside the group "layers" too
        if isinstance(group, h5py.Group) and key not in _NOT_LAYERS:
            _collect(group, "", tensors)
    return tensors


def _collect(group, parent, tensors):
    """Gather the variables of a Keras 3 layer and of the layers inside it, under the layers' own names."""
    own, key = group.get("vars"), group.name.rsplit("/", 1)[-1]
    name = own.attrs.get("name") if own is not None else None
    # A model keeps its layers in a group called "layers", which is no part of their names.
    path = parent if own is None and key in _CONTAINERS else f"{parent}/{name or key}".lstrip("/")
    if own is not None and "seed_generator" not in group.name:
        for index, data in own.items():
            tensors[f"{path}/{index}"] = _array(data)
    for key, child in group.items():
        if key not in _NOT_LAYERS and isinstance(child, h5py.Group):
            _collect(child, path, tensors)


def _legacy_tensors(root):
    """Return the variables in the format of Keras 2, in which Keras's published weights still are.

    It lists the weights of a layer by name. A model inside another is one such layer, and so is a block of layers.
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
        raise ArgumentError(f"{data.name} is not a plain array")
    if data.nbytes > MOST_BYTES:  # a file may claim much more than it holds
        raise too_large("The file", data.name, data.shape)
    array = data[()]
    if data.attrs.get("dtype") == "bfloat16":
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16).astype("float32")
    return array
