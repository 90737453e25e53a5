"""The formats that a model can leave in: who writes each, what it needs, what it can hold. One line a format."""

import dataclasses
from pathlib import Path

from mobilenet_common.errors import ArgumentError, ExportError, install_hint, unknown_name
from mobilenet_common.libraries import is_installed
from mobilenet_runtime.file_formats import ENDINGS, FILE_FORMATS, FileFormat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format(FileFormat):
    """One format, and how it is written.

    Attributes:
        backend: The backend of Keras that writes it, with its extra.
        writer: The module of `mobilenet_zoo.exporting` and the function there that write it in float32.
        target: What operations are traced for; see `traced_for` of `mobilenet_common.ops.formulations`.
        libraries: What has to be installed beside the backend, to write it and to run it.
        data_format: Of its images.
        quantizations: What it can be quantized to, with the libraries that each needs.
        any_batch: Whether it takes batches of any size.
        reduces_range: Whether `reduce_range` is offered, as the runtime adds 8-bit products in 16 bits on processors
            without VNNI.
    """

    backend: str
    writer: tuple[str, str]
    target: str
    libraries: tuple[str, ...] = ()
    data_format: str
    quantizations: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    any_batch: bool = True
    reduces_range: bool = False

    def check_installed(self, quantization=None):
        """Raise an `ExportError` that names what to install where something is missing."""
        needed = (self.backend, *self.libraries, *(self.quantizations[quantization] if quantization else ()))
        missing = [name for name in needed if not is_installed(name)]
        if missing:
            raise ExportError(
                f"{self.title} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
                f"installed: {install_hint('export')}."
            )


def _format(name, **facts):
    return Format(**vars(FILE_FORMATS[name]), **facts)


_TORCH_ONNX = ("onnx", "onnxscript")

FORMATS = {
    entry.name: entry
    for entry in (
        _format(
            "litert",
            backend="tensorflow",
            writer=("tensorflow_writer", "write_litert"),
            target="litert",
            libraries=("ai_edge_litert",),
            data_format="channels_last",
            quantizations={name: ("ai_edge_quantizer",) for name in ("float16", "dynamic", "int8")},
            any_batch=False,
        ),
        _format(
            "onnx",
            backend="torch",
            writer=("torch_writer", "write_onnx"),
            target="onnx",
            libraries=(*_TORCH_ONNX, "onnxruntime"),
            data_format="channels_first",
            quantizations={name: ("onnx",) for name in ("float16", "dynamic", "int8")},
            reduces_range=True,
        ),
        _format(
            "openvino",
            backend="torch",
            writer=("torch_writer", "write_openvino"),
            target="onnx",
            libraries=(*_TORCH_ONNX, "openvino"),
            data_format="channels_first",
            quantizations={"float16": (), "int8": ("nncf",)},
            reduces_range=True,
        ),
        _format(
            "torch",
            backend="torch",
            writer=("torch_writer", "write_program"),
            target="torch",
            data_format="channels_first",
        ),
        _format(
            "saved_model",
            backend="tensorflow",
            writer=("tensorflow_writer", "write_saved_model"),
            target="saved_model",
            data_format="channels_last",
        ),
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
        raise ArgumentError(
            f"path={str(path)!r} ends with {path.suffix!r}, which is no format that is known. Allowed: "
            f"{', '.join(ENDINGS)}, or no ending for the folder of a SavedModel."
        )
    return found
