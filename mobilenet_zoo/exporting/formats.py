"""The formats that a model can leave in: who writes each, what it needs, what it can hold. One line a format."""

import dataclasses
from pathlib import Path

from mobilenet_common.errors import ArgumentError, ExportError, install_hint, unknown_name
from mobilenet_common.libraries import is_installed


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: As `format=` takes it.
        title: For people.
        ending: Of a file; nothing for a folder.
        backend: The backend of Keras that writes it, with its extra.
        libraries: What has to be installed beside it, to write it and to run it.
        data_format: Of its images.
        quantizations: What it can be quantized to, with the libraries that each needs.
        any_batch: Whether it takes batches of any size.
        companions: Endings of files that belong to the first.
        reduces_range: Whether `reduce_range` is offered, as the runtime adds 8-bit products in 16 bits on processors
            without VNNI.
    """

    name: str
    title: str
    ending: str
    backend: str
    libraries: tuple[str, ...]
    data_format: str
    quantizations: dict[str, tuple[str, ...]]
    any_batch: bool = True
    companions: tuple[str, ...] = ()
    reduces_range: bool = False

    def files(self, path):
        """Return the paths of all files that an export to `path` writes."""
        path = Path(path)
        return [path, *(path.with_suffix(ending) for ending in self.companions)]

    def check_installed(self, quantization=None):
        """Raise an `ExportError` that names what to install where something is missing."""
        needed = (self.backend, *self.libraries, *(self.quantizations[quantization] if quantization else ()))
        missing = [name for name in needed if not is_installed(name)]
        if missing:
            raise ExportError(
                f"{self.title} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
                f"installed: {install_hint('export')}."
            )


_LITERT = {name: ("ai_edge_quantizer",) for name in ("float16", "dynamic", "int8")}
_ONNX = {"float16": ("onnx",), "dynamic": ("onnx",), "int8": ("onnx",)}
_OPENVINO = {"float16": (), "int8": ("nncf",)}
_TORCH_ONNX = ("onnx", "onnxscript")

FORMATS = {
    entry.name: entry
    for entry in (
        Format("litert", "LiteRT", ".tflite", "tensorflow", ("ai_edge_litert",), "channels_last", _LITERT, False),
        Format(
            "onnx", "ONNX", ".onnx", "torch", (*_TORCH_ONNX, "onnxruntime"), "channels_first", _ONNX, reduces_range=True
        ),
        Format(
            "openvino",
            "OpenVINO",
            ".xml",
            "torch",
            (*_TORCH_ONNX, "openvino"),
            "channels_first",
            _OPENVINO,
            companions=(".bin",),
            reduces_range=True,
        ),
        Format("torch", "torch.export", ".pt2", "torch", (), "channels_first", {}),
        Format("saved_model", "SavedModel", "", "tensorflow", (), "channels_last", {}),
    )
}


def find_format(path, name=None):
    """Return the `Format` of `name`, or of the path's ending.

    Raises:
        ValueError: Neither is known, or the two contradict each other.
    """
    path = Path(path)
    if name is not None and name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    found = next((format for format in FORMATS.values() if format.ending == path.suffix), None)
    if name is not None:
        format = FORMATS[name]
        if format.ending and format is not found:
            raise ArgumentError(
                f"path={str(path)!r} is not allowed with format={name!r}: it must end with {format.ending}."
            )
        return format
    if found is None:
        endings = ", ".join(format.ending for format in FORMATS.values() if format.ending)
        raise ArgumentError(
            f"path={str(path)!r} ends with {path.suffix!r}, which is no format that is known. Allowed: {endings}, or "
            "no ending for the folder of a SavedModel."
        )
    return found
