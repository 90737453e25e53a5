"""Reads a file of weights without running anything that is in it, and writes one."""

import json
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping

import h5py
import numpy as np

from mobilenet_common.checkpoints.keras_files import layer_configs, read_h5, read_keras, stem_attributes
from mobilenet_common.checkpoints.refusals import damaged
from mobilenet_common.checkpoints.torch_files import read_torch, write_torch
from mobilenet_common.errors import ArgumentError, CheckpointError
from mobilenet_common.writing import whole_file


def read(path):
    """Return what a file holds, by names; its content decides how it is read, whatever it is called.

    Keras's files give `layer/0`, `layer/1`, … with the variables in the order in which the layer keeps them, and
    nested layers as `block/layer/0`; the others give the names that they hold. What a PyTorch file holds beside
    tensors is there as well; `networks.find_network` leaves it out.

    Raises:
        CheckpointError: The file is missing, of an unknown kind, truncated or damaged, or would run code.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file: give the path of a checkpoint.")
    reader = _reader(path) or READERS.get(path.suffix)
    if reader is None:
        raise CheckpointError(
            f"{path} is not a file of weights: its content is of no known kind, and it has an unknown ending "
            f"{path.suffix!r}. Readable: {', '.join(READERS)}."
        )
    contents = reader(path)
    if isinstance(contents, Mapping) and not contents:
        raise CheckpointError(f"{path} holds no tensors.")
    return contents


def write(path, tensors, metadata=None):
    """Write `{name: NumPy array}` as `.safetensors`, or as a PyTorch state dict, all or nothing.

    Args:
        path: Ends with `.safetensors`, `.pth`, `.pt` or `.bin`. An existing file is replaced when the new one is whole.
        tensors: Contiguous arrays.
        metadata: `{str: str}` for the header of a `.safetensors` file.

    Raises:
        ValueError: Another ending, or PyTorch is needed and not installed.
    """
    path = pathlib.Path(path)
    writer = _WRITERS.get(path.suffix)
    if writer is None:
        raise ArgumentError(f"{path} has an unknown ending {path.suffix!r}. Writable: {', '.join(_WRITERS)}.")
    with whole_file(path) as part:
        writer(part, tensors, metadata)


def own_options(path):
    """Return what a file of this library records of the model's stem: `padding`, `norm_epsilon`, `image_facts`.

    A file that records nothing, as those of other libraries, gives an empty dict.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return {}
    if _reader(path) is _read_safetensors:
        return _safetensors_options(path)
    for options in (*(options for _, options in layer_configs(path)), stem_attributes(path)):
        if {"padding", "norm_epsilon"} <= options.keys():
            return {name: options[name] for name in ("padding", "norm_epsilon", "image_facts") if name in options}
    return {}


def _safetensors_options(path):
    """Return what `own_options` does, from the header of a safetensors file."""
    header, options = _header(path), {}
    try:
        if {"padding", "norm_epsilon"} <= header.keys():
            options |= {"padding": header["padding"], "norm_epsilon": float(header["norm_epsilon"])}
        if "image_facts" in header:
            options["image_facts"] = json.loads(header["image_facts"])
    except ValueError:  # not as this library writes it
        return {}
    return options


def _header(path):
    """Return the texts in the header of a safetensors file, `{key: text}`; {} where it can't be read."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError):  # reported when the tensors are read
        return {}


def as_array(value):
    """Return a NumPy array of any backend's tensor; types of floats that NumPy lacks, as bfloat16, become float32."""
    if hasattr(value, "detach"):  # PyTorch
        value = value.detach().cpu()
        if value.is_floating_point() and str(value.dtype) not in ("torch.float16", "torch.float32", "torch.float64"):
            value = value.float()
    array = np.asarray(value)
    return array.astype("float32") if array.dtype.name.startswith(("bfloat", "float8")) else array


def _reader(path):
    """Return the reader of what a file holds, or None where it is nothing known."""
    with open(path, "rb") as file:
        start = file.read(9)
    # First, since the length that a header of JSON has may look like the start of the others.
    if start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= path.stat().st_size:
        return _read_safetensors
    if h5py.is_hdf5(path):
        return read_h5
    if start.startswith(b"PK\x03\x04"):
        return _archive_reader(path)
    return read_torch if start[:1] == pickle.PROTO else None


def _archive_reader(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return None
    if "model.weights.h5" in names:
        return read_keras
    return read_torch if any(name.rpartition("/")[2] == "data.pkl" for name in names) else None


def _read_safetensors(path):
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: as_array(file.get_tensor(name)) for name in file.keys()}
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise damaged(path, "safetensors", error) from None


def _write_safetensors(path, tensors, metadata):
    from safetensors.numpy import save_file

    save_file(tensors, path, metadata)


# For what a file must hold by its name where its content doesn't tell, as where it is truncated.
READERS = {
    ".safetensors": _read_safetensors,
    ".pth": read_torch,
    ".pt": read_torch,
    ".bin": read_torch,
    ".ckpt": read_torch,
    ".tar": read_torch,
    ".h5": read_h5,
    ".keras": read_keras,
}
_WRITERS = {
    ".safetensors": _write_safetensors,
    ".pth": write_torch,
    ".pt": write_torch,
    ".bin": write_torch,
}
