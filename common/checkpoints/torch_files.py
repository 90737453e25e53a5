"""Reads PyTorch's files without running anything that is in them, and writes them."""

import pickle
import re
import threading
import zipfile

from mobilenet_common.checkpoints.refusals import damaged
from mobilenet_common.errors import CheckpointError
from mobilenet_common.libraries import import_library


class NotRead:
    """Stands in for an object beside the tensors of a checkpoint; keeps nothing of it and runs nothing."""

    def __new__(cls, *arguments, **options):
        return super().__new__(cls)

    def __init__(self, *arguments, **options):
        pass

    def __setstate__(self, state):
        pass


def _empty_dict(*arguments):
    return {}


# What checkpoints of timm, torchvision and Lightning hold beside tensors: the arguments of the run, its paths, times
# and scores. PyTorch's reader gets stand-ins by these names, so that not even the named classes are called.
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
_ONE_AT_A_TIME = threading.Lock()  # PyTorch has one list of permitted names for the process
_ADVICE = "Ask its owner for a file of `model.state_dict()` alone, best as .safetensors."


def read_torch(path):
    """Return what a PyTorch file holds, tensors as they are, and `NotRead` for harmless objects beside them.

    Raises:
        CheckpointError: PyTorch is missing, or the file is truncated, damaged, or needs code to be run.
    """
    torch = _torch(path)
    if _is_torchscript(path):
        raise CheckpointError(f"{path} is a TorchScript archive, which is code, so it was not read. {_ADVICE}")
    _check_archive(path)
    try:
        permitted = torch.serialization.safe_globals([(stand_in, name) for name, stand_in in _HARMLESS.items()])
        with _ONE_AT_A_TIME, permitted, open(path, "rb") as file:  # given a path, PyTorch would go by its ending
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _is_pickle(path):
            wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f" ({wanted[1]})" if wanted else ""
            raise CheckpointError(
                f"{path} holds more than tensors{what}, and reading it could run code, so it was not read. {_ADVICE}"
            ) from None
        raise damaged(path, "PyTorch", error) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise damaged(path, "PyTorch", error) from None


def write_torch(path, tensors, metadata):
    """Write a state dict; PyTorch's files have no place for `metadata`."""
    torch = _torch(path)
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, path)


def _torch(path):
    return import_library("torch", "torch", f"{path} is a PyTorch file and", CheckpointError)


def _check_archive(path):
    """Refuse an archive with compressed members, as PyTorch writes none: a small one could fill the memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError):  # no archive, or a damaged one
        return
    compressed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if compressed:
        raise CheckpointError(
            f"{path} was not read: its member {compressed[0]} is compressed, which PyTorch does not do. Load and save "
            "it again with torch, if you trust it."
        )


def _is_torchscript(path):
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _is_pickle(path):
    """Return whether a refused file is a whole pickle or PyTorch archive, and not just noise."""
    if zipfile.is_zipfile(path):
        return True
    with open(path, "rb") as file:
        return file.read(1) == pickle.PROTO
