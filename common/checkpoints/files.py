"""Reads a file of weights into `{name: array}` without running anything that is in it, and writes one."""

import json
import os
import pathlib
import pickle
import tempfile
import zipfile
import zlib

import h5py
import numpy as np

from mobilenet_common.errors import CheckpointError, install_hint

READERS = {}
_MOST_BYTES = 1 << 30  # of one tensor: seven times the largest MobileNet, all of it


def read(path):
    """`{name: NumPy array}` of the tensors in a file.

    Keras's files give `layer/0`, `layer/1`, … with the variables in the order in which the layer keeps them, and
    nested layers as `block/layer/0`; the others give the names that they hold.

    Raises:
        CheckpointError: The file is missing, of an unknown kind, truncated or damaged, or would run code.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file: give the path of a checkpoint.")
    reader = READERS.get(path.suffix)
    if reader is None:
        raise CheckpointError(f"{path} has an unknown ending {path.suffix!r}. Readable: {', '.join(READERS)}.")
    tensors = reader(path)
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors.")
    return tensors


def write(path, tensors, metadata=None):
    """Writes `{name: NumPy array}` as `.safetensors`, or as a PyTorch state dict, all or nothing.

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
        raise ValueError(f"{path} has an unknown ending {path.suffix!r}. Writable: {', '.join(_WRITERS)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as folder:
        part = pathlib.Path(folder) / path.name
        writer(part, tensors, metadata)
        os.replace(part, path)


def own_options(path):
    """`padding` and `norm_epsilon` of the model in a `.keras` file of this library; nothing for other files."""
    path = pathlib.Path(path)
    if path.suffix != ".keras":
        return {}
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _MOST_BYTES:
                return {}
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return {}
    for layer in layers:
        options = layer.get("config", {})
        if {"padding", "norm_epsilon"} <= options.keys():
            return {name: options[name] for name in ("padding", "norm_epsilon")}
    return {}


def as_array(value):
    """A NumPy array of any backend's tensor; bfloat16, which NumPy lacks, becomes float32."""
    if hasattr(value, "detach"):  # PyTorch
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    array = np.asarray(value)
    return array.astype("float32") if array.dtype.name == "bfloat16" else array


def _damaged(path, error):
    detail = str(error).strip().split("\n")[0]
    return CheckpointError(
        f"{path} can't be read: it is truncated, damaged or not a {path.suffix} file ({detail}). Fetch it again."
    )


def _read_safetensors(path):
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: as_array(file.get_tensor(name)) for name in file.keys()}
    except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
        raise _damaged(path, error) from None
    return tensors


def _write_safetensors(path, tensors, metadata):
    from safetensors.numpy import save_file

    save_file(tensors, path, metadata)


def _write_torch(path, tensors, metadata):
    torch = _torch(path)
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, path)


def _torch(path):
    try:
        import torch
    except ImportError:
        raise CheckpointError(f"{path} is a PyTorch file, which needs PyTorch: {install_hint('torch')}.") from None
    return torch


def _read_torch(path):
    torch = _torch(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _is_pickle(path):
            raise CheckpointError(
                f"{path} holds more than tensors, and reading it could run code, so it was not read. "
                "Ask its author for a .safetensors file."
            ) from None
        raise _damaged(path, error) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from None
    for wrapper in ("state_dict", "model", "state_dict_ema"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(hasattr(value, "detach") for value in state.values()):
        raise CheckpointError(f"{path} is not a state dict: it must map names to tensors.")
    prefix = "module."  # of models that were wrapped for several devices
    if all(name.startswith(prefix) for name in state):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    for name, value in state.items():
        if value.numel() * value.element_size() > _MOST_BYTES:  # a view may claim more than the file holds
            raise _too_large(path, name, tuple(value.shape))
    return {name: as_array(value) for name, value in state.items()}


def _too_large(path, name, shape):
    return CheckpointError(f"{path} was not read: its tensor {name} of shape {shape} is too large for a MobileNet.")


def _is_pickle(path):
    """Whether a refused file is a whole pickle or PyTorch archive, and not just noise."""
    if zipfile.is_zipfile(path):
        return True
    with open(path, "rb") as file:
        return file.read(1) == pickle.PROTO


def _read_h5(path):
    try:
        with h5py.File(path, "r") as file:
            return _h5_tensors(file)
    except CheckpointError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from None


def _read_keras(path):
    try:
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member:
            with h5py.File(member, "r") as file:
                return _h5_tensors(file)
    except CheckpointError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _damaged(path, error) from None


def _h5_tensors(file):
    for root in (file, file.get("model_weights")):
        if root is not None and "layer_names" in root.attrs:
            return _legacy_tensors(root)
    root = file.get("layers", file.get("_layer_checkpoint_dependencies"))
    tensors = {}
    if isinstance(root, h5py.Group):
        for group in root.values():
            _collect(group, "", tensors)
    return tensors


def _collect(group, parent, tensors):
    """Gathers the variables of a Keras 3 layer and of the layers inside it, under the layers' own names."""
    own = group.get("vars")
    name = own.attrs.get("name") if own is not None else None
    path = f"{parent}/{name or group.name.rsplit('/', 1)[-1]}".lstrip("/")
    if own is not None and "seed_generator" not in group.name:
        for index, data in own.items():
            tensors[f"{path}/{index}"] = _h5_array(data)
    for key, child in group.items():
        if key != "vars" and isinstance(child, h5py.Group):
            _collect(child, path, tensors)


def _legacy_tensors(root):
    """The variables in the format of Keras 2, in which Keras's published weights still are."""
    tensors = {}
    for layer in _strings(root.attrs["layer_names"]):
        for index, weight in enumerate(_strings(root[layer].attrs["weight_names"])):
            tensors[f"{layer}/{index}"] = _h5_array(root[layer][weight])
    return tensors


def _strings(names):
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _h5_array(data):
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise ValueError(f"{data.name} is not a plain array")
    if data.nbytes > _MOST_BYTES:  # a file may claim much more than it holds
        raise _too_large("The file", data.name, data.shape)
    array = data[()]
    if data.attrs.get("dtype") == "bfloat16":
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16).astype("float32")
    return array


READERS.update(
    {
        ".safetensors": _read_safetensors,
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".bin": _read_torch,
        ".h5": _read_h5,
        ".keras": _read_keras,
    }
)
_WRITERS = {
    ".safetensors": _write_safetensors,
    ".pth": _write_torch,
    ".pt": _write_torch,
    ".bin": _write_torch,
}
