"""The formats of exported models: what each is called, which files it has, and what opens it. One entry a format."""

import dataclasses
from pathlib import Path

from mobilenet_common.types import PathLike

SAVED_MODEL_FILE = "saved_model.pb"  # makes a folder a SavedModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileFormat:
    """One format.

    Attributes:
        name: As `format=` of `mobilenet_zoo.export` takes it.
        title: For people.
        ending: Of a file; nothing for a folder.
        library: What reads and writes it, for messages.
        runtime: The module of `mobilenet_runtime.runtimes` and the class there that run it.
        companions: Endings of the files that belong to the first, in place of its own.
        external: Endings, behind its own, of files that other exporters put weights into.
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
        """Return the paths of all files that the exported model at `path` may have, whoever wrote it."""
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
