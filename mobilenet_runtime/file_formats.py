"""The file formats of exported models: their names, their files and the runtimes that run them."""

import dataclasses
from pathlib import Path

from mobilenet_common.types import PathLike

SAVED_MODEL_FILE = "saved_model.pb"  # a folder with this file is a SavedModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileFormat:
    """A file format of exported models.

    Attributes:
        name: Value of the argument `format` of `mobilenet_zoo.export`.
        title: Human-readable name.
        ending: File name extension with its dot, or "" for a folder.
        library: Name of the library that reads and writes the format, for messages.
        runtime: Module of `mobilenet_runtime.runtimes` and the class in it that runs the format.
        companions: Extensions of further files that belong to a model. Each replaces `ending` in the path.
        external: Extensions of files in which other exporters store weights. Each is appended to the file name.
    """

    name: str
    title: str
    ending: str
    library: str
    runtime: tuple[str, str]
    companions: tuple[str, ...] = ()
    external: tuple[str, ...] = ()

    def files(self, path: PathLike) -> list[Path]:
        """Return the paths of all files that an export to `path` writes."""
        path = Path(path)
        return [path, *(path.with_suffix(ending) for ending in self.companions)]

    def possible_files(self, path: PathLike) -> list[Path]:
        """Return the paths of all files that an exported model at `path` may have, whichever program wrote it."""
        path = Path(path)
        return [*self.files(path), *(path.with_name(path.name + ending) for ending in self.external)]


FILE_FORMATS = {
    entry.name: entry
    for entry in (
        FileFormat(
            name="litert", title="LiteRT", ending=".tflite", library="LiteRT", runtime=("litert", "LiteRtModel")
        ),
        FileFormat(
            name="onnx",
            title="ONNX",
            ending=".onnx",
            library="ONNX",
            runtime=("onnx", "OnnxModel"),
            external=(".data",),
        ),
        FileFormat(
            name="openvino",
            title="OpenVINO",
            ending=".xml",
            library="OpenVINO",
            runtime=("openvino", "OpenvinoModel"),
            companions=(".bin",),
        ),
        FileFormat(
            name="torch",
            title="torch.export",
            ending=".pt2",
            library="PyTorch",
            runtime=("torch_export", "TorchProgram"),
        ),
        FileFormat(
            name="saved_model",
            title="SavedModel",
            ending="",
            library="TensorFlow",
            runtime=("saved_model", "SavedModel"),
        ),
    )
}
BY_ENDING = {entry.ending: entry for entry in FILE_FORMATS.values()}
ENDINGS = tuple(filter(None, BY_ENDING))
