"""Reads and writes weights files; reading never runs code from a file."""

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
    """Return the contents of a weights file: its tensors by name.

    The format is detected from the content; the extension is only used if the content has no known signature.

    Tensors from Keras files are called `layer/0`, `layer/1`, … in the order of the layer's variables, and
    `block/layer/0` in nested layers. Tensors from other files keep their names. PyTorch
    files can also contain other objects, which are included; `networks.find_network` removes them.

    Raises:
        CheckpointError: If the file is missing, in an unknown format, truncated or damaged, or if reading it would run
            code.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file: pass the path of a checkpoint.")
    reader = _detect_reader(path) or READERS.get(path.suffix)
    if reader is None:
        raise CheckpointError(
            f"{path} is not a weights file: its content has an unknown format, and its name has the unknown extension "
            f"{path.suffix!r}. Allowed: {', '.join(READERS)}."
        )
    contents = reader(path)
    if isinstance(contents, Mapping) and not contents:
        raise CheckpointError(f"{path} holds no tensors.")
    return contents


def write(path, tensors, metadata=None):
    """Write tensors as a `.safetensors` file or a PyTorch state dict, atomically.

    Args:
        path: Path with the extension `.safetensors`, `.pth`, `.pt` or `.bin`. An existing file is replaced once the new
            one is complete.
        tensors: `{name: NumPy array}`; the arrays must be contiguous.
        metadata: `{str: str}` for the header of a `.safetensors` file, or None.

    Raises:
        ValueError: If the extension is unknown, or PyTorch is needed and not installed.
    """
    path = pathlib.Path(path)
    writer = _WRITERS.get(path.suffix)
    if writer is None:
        raise ArgumentError(f"{path} has the unknown extension {path.suffix!r}. Allowed: {', '.join(_WRITERS)}.")
    with whole_file(path) as part:
        writer(part, tensors, metadata)


def own_options(path):
    """Return the stem's options that this library stored in a file: `padding`, `norm_epsilon`, `image_facts`.

    The result is empty for files without these options, such as those of other libraries.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return {}
    if _detect_reader(path) is _read_safetensors:
        return _safetensors_options(path)
    for options in (*(options for _, options in layer_configs(path)), stem_attributes(path)):
        if {"padding", "norm_epsilon"} <= options.keys():
            return {name: options[name] for name in ("padding", "norm_epsilon", "image_facts") if name in options}
    return {}


def _safetensors_options(path):
    """Return the result of `own_options` for a safetensors file, from the metadata in its header."""
    metadata, options = _read_metadata(path), {}
    try:
        if {"padding", "norm_epsilon"} <= metadata.keys():
            options |= {"padding": metadata["padding"], "norm_epsilon": float(metadata["norm_epsilon"])}
        if "image_facts" in metadata:
            options["image_facts"] = json.loads(metadata["image_facts"])
    except ValueError:  # The metadata wasn't written by this library.
        return {}
    return options


def _read_metadata(path):
    """Return the metadata of a safetensors file, `{key: text}`; empty if the file can't be read."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError):  # `read` reports a damaged file.
        return {}


def as_array(value):
    """Return a tensor of any backend as a NumPy array; float types that NumPy lacks (bfloat16) become float32."""
    if hasattr(value, "detach"):  # PyTorch
        value = value.detach().cpu()
        if value.is_floating_point() and str(value.dtype) not in ("torch.float16", "torch.float32", "torch.float64"):
            value = value.float()
    array = np.asarray(value)
    return array.astype("float32") if array.dtype.name.startswith(("bfloat", "float8")) else array


def _detect_reader(path):
    """Return the function that reads a file, detected from its content, or None for an unknown format."""
    with open(path, "rb") as file:
        start = file.read(9)
    # Test for safetensors first: the length of its header can look like the signature of another format.
    if start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= path.stat().st_size:
        return _read_safetensors
    if h5py.is_hdf5(path):
        return read_h5
    if start.startswith(b"PK\x03\x04"):
        return _detect_archive_reader(path)
    return read_torch if start[:1] == pickle.PROTO else None


def _detect_archive_reader(path):
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


# Readers by extension, for files whose content has no known signature, such as truncated files.
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
