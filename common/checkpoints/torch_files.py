"""Reads and writes PyTorch's files; reading never runs code from a file."""

import pickle
import re
import threading
import zipfile

from mobilenet_common.checkpoints.refusals import damaged
from mobilenet_common.errors import CheckpointError
from mobilenet_common.libraries import import_library


class NotRead:
    """Placeholder for an object other than a tensor in a checkpoint; it keeps no data and runs no code."""

    def __new__(cls, *arguments, **options):
        return super().__new__(cls)

    def __init__(self, *arguments, **options):
        pass

    def __setstate__(self, state):
        pass


def _empty_dict(*arguments):
    return {}


# Classes of the objects other than tensors in checkpoints of timm, torchvision and Lightning: arguments, paths, times
# and metrics of the run. PyTorch's reader gets placeholders under these names, so the real classes are never called.
_HARMLESS = {
    **dict.fromkeys(
        (
            "argparse.Namespace",
            "builtins.bool",
            "builtins.dict",
            "builtins.float",
            "builtins.int",
            "builtins.list",
            "builtins.str",
            "datetime.date",
            "datetime.datetime",
            "datetime.time",
            "datetime.timedelta",
            "datetime.timezone",
            "numpy.core.multiarray._reconstruct",
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray._reconstruct",
            "numpy._core.multiarray.scalar",
            "numpy.dtype",
            "numpy.ndarray",
            *(
                f"{module}.{name}"
                for module in ("pathlib", "pathlib._local")
                for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
            ),
        ),
        NotRead,
    ),
    "collections.defaultdict": _empty_dict,
    "lightning_fabric.utilities.data.AttributeDict": dict,
    "lightning.fabric.utilities.data.AttributeDict": dict,
    "pytorch_lightning.utilities.parsing.AttributeDict": dict,
}
_LOCK = threading.Lock()  # PyTorch keeps one list of allowed names per process.
_ADVICE = "Ask its owner for a file with only `model.state_dict()`, preferably as .safetensors."


def read_torch(path):
    """Return the contents of a PyTorch file, with `NotRead` in place of known harmless objects other than tensors.

    Raises:
        CheckpointError: If PyTorch isn't installed, if the file is truncated or damaged, or if reading it would run
            code.
    """
    torch = _torch(path)
    if _is_torchscript(path):
        raise CheckpointError(f"{path} is a TorchScript archive, which is code, so it was not read. {_ADVICE}")
    _check_archive(path)
    try:
        allowed = torch.serialization.safe_globals([(placeholder, name) for name, placeholder in _HARMLESS.items()])
        # Pass an open file: given a path, PyTorch would choose the format by its extension.
        with _LOCK, allowed, open(path, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _is_pickle(path):
            rejected = re.search(r"GLOBAL ([\w.]+)", str(error))
            detail = f" ({rejected[1]})" if rejected else ""
            raise CheckpointError(
                f"{path} contains objects other than tensors{detail}, and reading it could run code, so it was not "
                f"read. {_ADVICE}"
            ) from None
        raise damaged(path, "PyTorch", error) from None
    except Exception as error:  # A damaged pickle can raise any exception.
        raise damaged(path, "PyTorch", error) from None


def write_torch(path, tensors, metadata):
    """Write a state dict; `metadata` is ignored, because PyTorch's files can't store it."""
    torch = _torch(path)
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, path)


def _torch(path):
    return import_library("torch", "torch", f"{path} is a PyTorch file and", CheckpointError)


def _check_archive(path):
    """Reject an archive with compressed members: PyTorch writes none, and a small file could fill the memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError):  # The file isn't an archive, or is damaged.
        return
    compressed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if compressed:
        raise CheckpointError(
            f"{path} was not read: its member {compressed[0]} is compressed, and PyTorch writes only uncompressed "
            "files. If you trust the file, load and save it again with torch."
        )


def _is_torchscript(path):
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _is_pickle(path):
    """Return whether a rejected file is a pickle or an archive, not a damaged file."""
    if zipfile.is_zipfile(path):
        return True
    with open(path, "rb") as file:
        return file.read(1) == pickle.PROTO
