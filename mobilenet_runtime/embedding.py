"""Write metadata into exported files, in the way of each format, so that other tools can read it too."""

import json
import zipfile
from pathlib import Path

import numpy as np

from mobilenet_common.errors import ArgumentError
from mobilenet_common.types import PathLike
from mobilenet_common.writing import folder_beside, replace_all
from mobilenet_runtime.metadata import FILE, KEY, Metadata
from mobilenet_runtime.runtimes import format_of
from mobilenet_runtime.runtimes.base import imported, opening_errors

LABELS = "labels.txt"


def embed(path: PathLike, metadata: Metadata) -> None:
    """Write metadata into an exported file, replacing any metadata that the file has.

    The model's outputs stay bit-identical. A new file is written next to the old one, and replaces it once it is
    complete.

    Args:
        path: Path of a `.tflite`, `.onnx`, `.xml` or `.pt2` file, or the folder of a SavedModel.
        metadata: The `Metadata` to write.

    Raises:
        ValueError: If the file doesn't exist or its format is unknown.
        RuntimeFailure: If the file is damaged or can't be rewritten.
        RuntimeMissing: If the library that reads and writes the format is not installed.
    """
    path = Path(path)
    format = format_of(path)
    with folder_beside(path) as folder:
        with opening_errors(path, format.library):
            parts = _WRITERS[format.name](path, metadata, folder)
        replace_all(*zip(*parts, strict=True))


def _litert(path, metadata, folder):
    schema = imported("ai_edge_litert.schema_py_generated")
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ArgumentError("it is not a LiteRT file")
    model = schema.ModelT.InitFromPackedBuf(content)
    for buffer in model.buffers:
        # ai-edge-quantizer stores weights after the graph. Their offsets change with the graph, so move them into it.
        if buffer.offset:
            buffer.data = np.frombuffer(content, "uint8", buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    table = np.frombuffer(_litert_table(metadata, _litert_outputs(model)), "uint8")
    existing = [entry for entry in model.metadata or [] if entry.name == b"TFLITE_METADATA"]
    if existing:
        model.buffers[existing[0].buffer].data = table
    else:
        entry = schema.MetadataT()
        entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
        model.metadata = [*(model.metadata or []), entry]
        model.buffers.append(schema.BufferT(data=table))
    model.buffers = [_aligned(schema, buffer) for buffer in model.buffers]
    builder = imported("flatbuffers").Builder(len(content) + len(table))
    builder.Finish(model.Pack(builder), b"TFL3")
    part = folder / path.name
    part.write_bytes(builder.Output())
    with zipfile.ZipFile(part, "a") as archive:
        for name, text in _litert_files(path, metadata).items():
            archive.writestr(zipfile.ZipInfo(name), text)  # uncompressed, as LiteRT requires, and undated
    return [(part, path)]


def _litert_files(path, metadata):
    """Return `{name: content}` of the files to append to a `.tflite`, including files that other tools appended."""
    files: dict[str, str | bytes] = {}
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist() if name not in (LABELS, FILE)}
    if metadata.class_names:
        files[LABELS] = "".join(f"{' '.join(name.split())}\n" for name in metadata.class_names)
    return files | {FILE: metadata.as_json()}


def _litert_outputs(model):
    """Return `[(name, number of axes)]` of the outputs, with names from the first signature or else the tensors."""
    graph, signatures = model.subgraphs[0], model.signatureDefs or []
    named = {output.tensorIndex: output.name for signature in signatures[:1] for output in signature.outputs}
    tensors = [(index, graph.tensors[index]) for index in graph.outputs]
    return [(named.get(index, tensor.name).decode(), len(tensor.shape)) for index, tensor in tensors]


def _aligned(schema, buffer):
    """Return the buffer with its data aligned to 16 bytes. The schema requires it, but its Python code omits it."""

    class Aligned(schema.BufferT):
        def Pack(self, builder):
            data = None
            if self.data is not None:
                content = np.asarray(self.data, "uint8").tobytes()
                builder.StartVector(1, len(content), 16)
                builder.head -= len(content)
                builder.Bytes[builder.head : builder.head + len(content)] = content
                data = builder.EndVector()
            schema.BufferStart(builder)
            if data is not None:
                schema.BufferAddData(builder, data)
            return schema.BufferEnd(builder)

    return Aligned(data=buffer.data)


# LiteRT's metadata is a flatbuffer with its own schema, metadata_schema.fbs; the code below writes version 1.0.0. The
# numbers are the indices of fields in the schema's tables, and the members of its unions and enumerations.
_FEATURES, _IMAGE = 1, 2  # ContentProperties
_NORMALIZATION = 1  # ProcessUnitOptions
_COLORS = {1: 2, 3: 1}  # ColorSpaceType by the number of channels
_AXIS_LABELS = 2  # AssociatedFileType


def _litert_table(metadata, outputs):
    """Return the bytes of a ModelMetadata table."""
    builder = imported("flatbuffers").Builder(1024)

    def table(*fields):
        """Write a table with fields `(index, kind, value)`; its strings and inner tables must be written already."""
        builder.StartObject(max((index for index, _, _ in fields), default=-1) + 1)
        for index, kind, value in fields:
            add = {
                "offset": builder.PrependUOffsetTRelativeSlot,
                "byte": builder.PrependUint8Slot,
                "uint": builder.PrependUint32Slot,
            }[kind]
            add(index, value, 0)
        return builder.EndObject()

    def offsets(values):
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependUOffsetTRelative(value)
        return builder.EndVector()

    def numbers(values):
        return builder.CreateNumpyVector(np.asarray(values, "<f4"))

    def tensor(name, description, content, *others):
        fields = [(0, "offset", builder.CreateString(name)), (1, "offset", builder.CreateString(description))]
        return table(*fields, (3, "offset", content), *others)

    def content(kind, properties):
        return table((0, "byte", kind), (1, "offset", properties))

    def stats(low, high):
        return (5, "offset", table((0, "offset", numbers(high)), (1, "offset", numbers(low))))

    # Mean and standard deviation are for pixels in 0..255, the input of LiteRT's own tools.
    mean, std = ([0.0], [1.0]) if metadata.mean is None else 255 * np.array([metadata.mean, metadata.std])
    rows, columns = metadata.size
    size = table((0, "uint", columns), (1, "uint", rows))
    image = table((0, "byte", _COLORS.get(metadata.channels, 0)), (1, "offset", size))
    normalization = table((0, "offset", numbers(mean)), (1, "offset", numbers(std)))
    unit = table((0, "byte", _NORMALIZATION), (1, "offset", normalization))
    input_tensor = tensor(
        "image",
        "The image.",
        content(_IMAGE, image),
        (4, "offset", offsets([unit])),
        stats((0 - np.asarray(mean)) / std, (255 - np.asarray(mean)) / std),
    )
    output_tensors = []
    for name, axes in outputs:
        others, has_classes = [], axes == 2  # feature maps have more axes
        if metadata.gives == "probabilities" and has_classes:
            others.append(stats([0.0], [1.0]))
        if metadata.class_names and has_classes:
            fields = [(0, "offset", builder.CreateString(LABELS)), (2, "byte", _AXIS_LABELS)]
            others.append((6, "offset", offsets([table(*fields)])))
        description = f"The {metadata.gives if has_classes else 'features'}."
        output_tensors.append(tensor(name, description, content(_FEATURES, table()), *others))
    graph = table((2, "offset", offsets([input_tensor])), (3, "offset", offsets(output_tensors)))
    texts = {0: metadata.name, 1: _description(metadata), 2: metadata.generator.rpartition(" ")[2], 7: "1.0.0"}
    if metadata.license:
        texts[5] = metadata.license
    texts = {index: builder.CreateString(text) for index, text in texts.items()}
    graphs = offsets([graph])
    model = table(*((index, "offset", text) for index, text in texts.items()), (3, "offset", graphs))
    builder.Finish(model, b"M001")
    return bytes(builder.Output())


def _description(metadata):
    source = f", with the published weights {metadata.source}" if metadata.source else ""
    return f"{metadata.name}{source}, by {metadata.generator}."


def _onnx(path, metadata, folder):
    onnx = imported("onnx")
    model = onnx.load(path, load_external_data=False)
    plain = {
        "class_names": metadata.class_names,
        "size": metadata.size,
        "mean": metadata.mean,
        "std": metadata.std,
        "crop": metadata.crop,
        "interpolation": metadata.interpolation,
        "gives": metadata.gives,
        "source": metadata.source,
        "license": metadata.license,
    }
    others = {prop.key: prop.value for prop in model.metadata_props if prop.key not in plain}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}
    present = {key: text for key, text in texts.items() if plain[key] is not None}
    onnx.helper.set_model_props(model, others | present | {KEY: metadata.as_json()})
    onnx.save(model, folder / path.name)
    return [(folder / path.name, path)]


def _openvino(path, metadata, folder):
    openvino = imported("openvino")
    model = openvino.Core().read_model(path)
    model.set_rt_info(metadata.as_json(), [KEY])
    for key, value in _model_api(metadata).items():
        key_path = ["model_info", key]
        if value or model.has_rt_info(key_path):  # existing entries can't be removed, only overwritten
            model.set_rt_info(value, key_path)
    part = folder / path.name
    openvino.save_model(model, part, compress_to_fp16=False)
    weights, target = part.with_suffix(".bin"), path.with_suffix(".bin")
    if weights.read_bytes() == target.read_bytes():  # a single file can be replaced atomically
        return [(part, path)]
    return [(weights, target), (part, path)]


def _model_api(metadata):
    """Return the entries that OpenVINO's Model API reads; its numbers are for RGB pixels in 0..255."""

    def in_pixels(values):
        return " ".join(f"{255 * value:.9g}" for value in values or ())

    return {
        "model_type": "" if metadata.gives == "features" else "Classification",
        "labels": " ".join("_".join(name.split()) for name in metadata.class_names or ()),
        "mean_values": in_pixels(metadata.mean),
        "scale_values": in_pixels(metadata.std),
        "resize_type": "crop",
        "reverse_input_channels": "False",
    }


def _torch(path, metadata, folder):
    from mobilenet_runtime.runtimes.torch_export import load_program

    torch = imported("torch", "torch")
    files = {FILE: ""}
    program = load_program(path, files)
    torch.export.save(program, folder / path.name, extra_files=files | {FILE: metadata.as_json()})
    return [(folder / path.name, path)]


def _saved_model(path, metadata, folder):
    target = path / "assets.extra" / FILE
    target.parent.mkdir(exist_ok=True)
    (folder / FILE).write_text(metadata.as_json(), encoding="utf-8")
    return [(folder / FILE, target)]


_WRITERS = {  # the keys are those of `FILE_FORMATS`
    "litert": _litert,
    "onnx": _onnx,
    "openvino": _openvino,
    "torch": _torch,
    "saved_model": _saved_model,
}
