"""The export formats: the backend and function that write each format, its dependencies, and what it supports."""

import dataclasses
from pathlib import Path

from mobilenet_common.errors import ArgumentError, ExportError, install_hint, unknown_name
from mobilenet_common.libraries import is_installed
from mobilenet_runtime.file_formats import ENDINGS, FILE_FORMATS, FileFormat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format(FileFormat):
    """Export format, and how files of this format are written.

    Attributes:
        backend: Keras backend that writes the format; also the library that must be installed for it.
        writer: Pair `(module, function)`: the function in this module of `mobilenet_zoo.exporting` writes the float32
            file.
        target: Target for which operations are traced; see `traced_for` in `mobilenet_common.ops.formulations`.
        libraries: Libraries that are needed in addition to the backend, to write and to run the file.
        data_format: Data format of the file's images, `"channels_last"` or `"channels_first"`.
        quantizations: Supported values of `quantization`, each with the libraries that it needs.
        any_batch: Whether a file can take batches of any size.
        reduces_range: Whether `reduce_range` is supported. It is for runtimes that add 8-bit products in 16 bits on
            processors without VNNI.
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
        """Raise an `ExportError` with an install hint if a library that the format needs is missing."""
        needed = (self.backend, *self.libraries, *(self.quantizations[quantization] if quantization else ()))
        missing = [name for name in needed if not is_installed(name)]
        if missing:
            raise ExportError(
                f"{self.title} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
                f"installed: {install_hint('export')}."
            )


def _format(name, **fields):
    return Format(**vars(FILE_FORMATS[name]), **fields)


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
    """Return the `Format` with this name or, without a name, the format that the extension of the path stands for.

    Raises:
        ValueError: The name or the extension is unknown, or the extension doesn't match the name.
    """
    path = Path(path)
    if name is not None and name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    by_ending = next((format for format in FORMATS.values() if format.ending == path.suffix), None)
    if name is not None:
        format = FORMATS[name]
        if format.ending and format is not by_ending:
            raise ArgumentError(
                f"path={str(path)!r} is not allowed with format={name!r}: it must end with {format.ending}."
            )
        return format
    if by_ending is None:
        raise ArgumentError(
            f"path={str(path)!r} has the unknown extension {path.suffix!r}. Allowed: {', '.join(ENDINGS)}, or no "
            "extension for the folder of a SavedModel."
        )
    return by_ending
