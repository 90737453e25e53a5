"""Embedding metadata into exported files: other tools read it, and the outputs stay bit-identical."""

import dataclasses
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest

import mobilenet_runtime
from mobilenet_runtime import Metadata, RuntimeFailure, embed
from tests.runtime import tiny

pytestmark = pytest.mark.across

KINDS = pytest.mark.parametrize("kind", tiny.FORMATS)
NAMES = ("rose", "lily of the valley", "oak, Quercus", "Götterbaum", "fern")
METADATA = Metadata(
    name="plants",
    class_names=NAMES,
    size=(tiny.SIZE, tiny.SIZE),
    channels=tiny.CHANNELS,
    layout="NCHW",
    crop=0.9,
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    gives="probabilities",
    source="mobilenetv2_100.ra_in1k",
    license="apache-2.0",
)


def metadata_for(kind, **changes):
    layout = "NHWC" if kind in ("tflite", "saved_model") else "NCHW"
    return dataclasses.replace(METADATA, layout=layout, **changes)


@pytest.fixture
def tiny_copy(tiny_file, tmp_path):
    """Return a function that copies a tiny file into `tmp_path` and returns the path of the copy."""

    def copy(kind, **options):
        original = tiny_file(kind, **options)
        path = tmp_path / original.name
        if original.is_dir():
            shutil.copytree(original, path)
        else:
            for file in original.parent.iterdir():  # includes separate weight files
                shutil.copy(file, tmp_path)
        return path

    return copy


def outputs_of(path, count=3):
    outputs = mobilenet_runtime.load(path)(tiny.images(count))
    return outputs if isinstance(outputs, dict) else {"output": outputs}


def assert_same_outputs(path, before):
    after = outputs_of(path)
    assert after.keys() == before.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)


@KINDS
class TestEveryFormat:
    def test_embedded_metadata_is_read_back_and_replaced(self, kind, tiny_copy):
        path = tiny_copy(kind)
        before = outputs_of(path)
        assert mobilenet_runtime.load(path).metadata is None
        embed(path, metadata_for(kind))
        assert mobilenet_runtime.load(path).metadata == metadata_for(kind)
        assert_same_outputs(path, before)
        bare = metadata_for(kind, class_names=None, mean=None, std=None, source=None, license=None, gives="features")
        embed(path, bare)
        assert mobilenet_runtime.load(path).metadata == bare, "the new metadata replaces the old"
        assert_same_outputs(path, before)

    def test_embedding_leaves_no_extra_files(self, kind, tiny_copy):
        path = tiny_copy(kind)
        before = sorted(file.name for file in path.parent.iterdir())
        embed(path, metadata_for(kind))
        assert sorted(file.name for file in path.parent.iterdir()) == before

    def test_failed_write_leaves_file_unchanged(self, kind, tiny_copy, monkeypatch):
        path = tiny_copy(kind)
        before = {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}

        def fail(*_):
            raise OSError("no space left")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            embed(path, metadata_for(kind))
        assert {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()} == before

    def test_damaged_file_raises_runtime_failure(self, kind, tiny_copy):
        if kind == "saved_model":
            pytest.skip("its metadata is a separate file")
        path = tiny_copy(kind)
        path.write_bytes(b"no model at all")
        with pytest.raises(RuntimeFailure, match=f"can't load .*{path.name}"):
            embed(path, metadata_for(kind))

    def test_damaged_metadata_raises_runtime_failure(self, kind, tiny_copy, monkeypatch):
        path = tiny_copy(kind)
        text = METADATA.as_json().replace('"crop": 0.9', '"crop": 7')
        monkeypatch.setattr(Metadata, "as_json", lambda _: text)
        embed(path, METADATA)
        with pytest.raises(RuntimeFailure, match=f"{path.name} has damaged metadata: crop=7"):
            mobilenet_runtime.load(path)

    def test_metadata_of_another_model_raises_runtime_failure(self, kind, tiny_copy):
        path = tiny_copy(kind)
        embed(path, metadata_for(kind, size=(tiny.SIZE, 9)))
        with pytest.raises(RuntimeFailure, match="another model's metadata"):
            mobilenet_runtime.load(path)


def test_layout_comes_from_metadata_if_shape_is_ambiguous(tiny_copy):
    """With three rows and three columns, the shape doesn't show which axis holds the channels."""
    path = tiny_copy("onnx", size=3)
    assert mobilenet_runtime.load(path).data_format == "channels_last", "the default for an ambiguous shape"
    embed(path, dataclasses.replace(METADATA, layout="NCHW", size=(3, 3)))
    model = mobilenet_runtime.load(path)
    assert model.data_format == "channels_first"
    images = tiny.images(2, 3)
    np.testing.assert_allclose(model(images)["map"], tiny.expected(images)["map"], atol=1e-5)


def test_missing_file_raises_value_error(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        embed(tmp_path / "absent.onnx", METADATA)


# The tables of LiteRT's metadata_schema.fbs, with their fields in the schema's order, which defines their offsets.
TABLES = {
    "ModelMetadata": [
        ("name", "text"),
        ("description", "text"),
        ("version", "text"),
        ("subgraph_metadata", ["SubGraphMetadata"]),
        ("author", "text"),
        ("license", "text"),
        ("associated_files", ["AssociatedFile"]),
        ("min_parser_version", "text"),
    ],
    "SubGraphMetadata": [
        ("name", "text"),
        ("description", "text"),
        ("input_tensor_metadata", ["TensorMetadata"]),
        ("output_tensor_metadata", ["TensorMetadata"]),
        ("associated_files", ["AssociatedFile"]),
    ],
    "TensorMetadata": [
        ("name", "text"),
        ("description", "text"),
        ("dimension_names", ["text"]),
        ("content", "Content"),
        ("process_units", ["ProcessUnit"]),
        ("stats", "Stats"),
        ("associated_files", ["AssociatedFile"]),
    ],
    "Content": [
        ("type", "byte"),
        ("content_properties", {1: "FeatureProperties", 2: "ImageProperties", 3: "BoundingBoxProperties"}),
        ("range", "ValueRange"),
    ],
    "FeatureProperties": [],
    "ImageProperties": [("color_space", "byte"), ("default_size", "ImageSize")],
    "ImageSize": [("width", "uint"), ("height", "uint")],
    "ProcessUnit": [("type", "byte"), ("options", {1: "NormalizationOptions", 2: "ScoreCalibrationOptions"})],
    "NormalizationOptions": [("mean", "floats"), ("std", "floats")],
    "Stats": [("max", "floats"), ("min", "floats")],
    "AssociatedFile": [("name", "text"), ("description", "text"), ("type", "byte"), ("locale", "text")],
}


def read_table(kind, table):
    """Return a table of a flatbuffer as a dictionary, according to the schema above."""
    from flatbuffers import number_types as types
    from flatbuffers.table import Table

    def read_nested(kind, position):
        return read_table(kind, Table(table.Bytes, table.Indirect(position)))

    values = {}
    for index, (name, field_type) in enumerate(TABLES[kind]):
        offset = table.Offset(4 + 2 * index)
        if not offset:
            continue
        position = table.Pos + offset
        if field_type == "text":
            values[name] = table.String(position).decode()
        elif field_type == "byte":
            values[name] = table.Get(types.Uint8Flags, position)
        elif field_type == "uint":
            values[name] = table.Get(types.Uint32Flags, position)
        elif field_type == "floats":
            values[name] = list(table.GetVectorAsNumpy(types.Float32Flags, offset))
        elif isinstance(field_type, list):
            start, count = table.Vector(offset), table.VectorLen(offset)
            values[name] = [read_nested(field_type[0], start + 4 * i) for i in range(count)]
        elif isinstance(field_type, dict):
            values[name] = read_nested(field_type[values["type"]], position)
        else:
            values[name] = read_nested(field_type, position)
    return values


class TestLiteRt:
    def table(self, path):
        from ai_edge_litert import schema_py_generated as schema
        from flatbuffers.table import Table

        model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
        (entry,) = (entry for entry in model.metadata if entry.name == b"TFLITE_METADATA")
        content = bytes(model.buffers[entry.buffer].data)
        assert content[4:8] == b"M001"
        return read_table("ModelMetadata", Table(content, int.from_bytes(content[:4], "little")))

    def test_litert_metadata_table_is_complete(self, tiny_copy):
        path = tiny_copy("tflite")
        embed(path, metadata_for("tflite"))
        metadata = self.table(path)
        assert (metadata["name"], metadata["license"]) == ("plants", "apache-2.0")
        assert (metadata["version"], metadata["min_parser_version"]) == (mobilenet_runtime.__version__, "1.0.0")
        assert "mobilenetv2_100.ra_in1k" in metadata["description"]
        assert "author" not in metadata
        (graph,) = metadata["subgraph_metadata"]
        (image,) = graph["input_tensor_metadata"]
        assert image["name"] == "image"
        properties = image["content"]["content_properties"]
        assert properties == {"color_space": 1, "default_size": {"width": tiny.SIZE, "height": tiny.SIZE}}
        (unit,) = image["process_units"]
        assert unit["type"] == 1
        np.testing.assert_allclose(unit["options"]["mean"], [123.675, 116.28, 103.53])
        np.testing.assert_allclose(unit["options"]["std"], [58.395, 57.12, 57.375])
        np.testing.assert_allclose(image["stats"]["min"], [-2.117904, -2.0357141, -1.8044444], rtol=1e-6)
        np.testing.assert_allclose(image["stats"]["max"], [2.2489083, 2.4285715, 2.64], rtol=1e-6)
        outputs = graph["output_tensor_metadata"]
        assert [output["name"] for output in outputs] == list(tiny.OUTPUTS)
        assert "associated_files" not in outputs[0], "a feature map has no classes"
        assert outputs[1]["associated_files"] == [{"name": "labels.txt", "type": 2}]
        assert outputs[1]["content"] == {"type": 1, "content_properties": {}}
        with zipfile.ZipFile(path) as archive:
            assert archive.read("labels.txt").decode().splitlines() == list(NAMES)
            assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}

    def test_gray_model_that_takes_pixels(self, tiny_copy):
        path = tiny_copy("tflite")
        embed(path, metadata_for("tflite", mean=None, std=None, channels=1))
        (image,) = self.table(path)["subgraph_metadata"][0]["input_tensor_metadata"]
        assert image["content"]["content_properties"]["color_space"] == 2
        assert image["process_units"][0]["options"] == {"mean": [0], "std": [1]}
        assert image["stats"] == {"min": [0], "max": [255]}

    @pytest.mark.parametrize("integers", ["int8", "uint8"])
    def test_quantized_file_has_same_outputs(self, integers, tiny_copy):
        path = tiny_copy("tflite", integers=integers, outputs=("logits",))
        before = outputs_of(path)
        operations = mobilenet_runtime.load(path).placement()
        embed(path, metadata_for("tflite"))
        assert_same_outputs(path, before)
        assert mobilenet_runtime.load(path).placement() == operations

    def test_weight_buffers_stay_aligned(self, tiny_copy):
        from ai_edge_litert import schema_py_generated as schema

        path = tiny_copy("tflite")
        embed(path, metadata_for("tflite"))
        content = path.read_bytes()
        model = schema.Model.GetRootAs(content)
        starts = []
        for i in range(model.BuffersLength()):
            table = model.Buffers(i)._tab
            offset = table.Offset(4)
            if offset and table.VectorLen(offset):
                starts.append(table.Vector(offset))
        assert len(starts) > 3
        assert [start % 16 for start in starts] == [0] * len(starts)

    def test_other_files_in_archive_are_kept(self, tiny_copy):
        path = tiny_copy("tflite")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("readme.txt", "by somebody")
        for _ in range(2):
            embed(path, metadata_for("tflite"))
        with zipfile.ZipFile(path) as archive:
            assert sorted(archive.namelist()) == ["labels.txt", "mobilenet.json", "readme.txt"]
            assert archive.read("readme.txt") == b"by somebody"


def test_onnx_properties_hold_metadata(tiny_copy):
    path = tiny_copy("onnx")
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"author": "somebody", "class_names": "old"})
    onnx.save(model, path)
    embed(path, METADATA)
    properties = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    assert json.loads(properties["class_names"]) == list(NAMES)
    assert json.loads(properties["mean"]) == list(METADATA.mean)
    assert (properties["license"], properties["gives"], properties["author"]) == (
        "apache-2.0",
        "probabilities",
        "somebody",
    )
    embed(path, dataclasses.replace(METADATA, class_names=None))
    assert "class_names" not in {prop.key for prop in onnx.load(path).metadata_props}


class TestOpenvino:
    def test_model_api_keys_are_written(self, tiny_copy):
        path = tiny_copy("xml")
        embed(path, METADATA)
        import openvino

        model = openvino.Core().read_model(path)
        keys = ("labels", "mean_values", "scale_values", "model_type", "resize_type")
        info = {key: model.get_rt_info(["model_info", key]).astype(str) for key in keys}
        assert info["labels"].split() == ["rose", "lily_of_the_valley", "oak,_Quercus", "Götterbaum", "fern"]
        assert [float(value) for value in info["mean_values"].split()] == pytest.approx([123.675, 116.28, 103.53])
        assert [float(value) for value in info["scale_values"].split()] == pytest.approx([58.395, 57.12, 57.375])
        assert (info["model_type"], info["resize_type"]) == ("Classification", "crop")

    @pytest.mark.parametrize("half", [False, True])
    def test_weights_stay_unchanged(self, half, tiny_copy):
        path = tiny_copy("xml", half=half)
        before, weights = outputs_of(path), path.with_suffix(".bin").read_bytes()
        embed(path, METADATA)
        assert path.with_suffix(".bin").read_bytes() == weights
        assert_same_outputs(path, before)


class TestTorch:
    def test_extra_files_are_kept(self, tiny_copy):
        path = tiny_copy("pt2")
        import torch

        torch.export.save(torch.export.load(path), path, extra_files={"notes.txt": "by somebody"})
        embed(path, METADATA)
        files = {"notes.txt": ""}
        torch.export.load(path, extra_files=files)
        assert files["notes.txt"] == "by somebody"

    def test_loading_does_not_unpickle(self, tiny_copy, tmp_path):
        """The sample inputs in a .pt2 file are a pickle, which could run any code."""
        path = tiny_copy("pt2")
        import torch

        witness = tmp_path / "witness"
        torch.save(Bomb(str(witness)), tmp_path / "bomb.pt")
        bomb = (tmp_path / "bomb.pt").read_bytes()
        changed = tmp_path / "changed.pt2"
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
            for name in old.namelist():
                new.writestr(name, bomb if name.endswith("sample_inputs/model.pt") else old.read(name))
        with pytest.raises(RuntimeFailure, match="can't load .*changed.pt2"):
            mobilenet_runtime.load(changed)
        assert not witness.exists()
        assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
        with pytest.raises(ZeroDivisionError):
            pickle.loads(pickle.dumps(Bomb(str(witness))))
        assert witness.exists(), "unpickling runs the code"


class Bomb:
    """Write a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return _explode, (self.path,)


def _explode(path):
    with open(path, "w"):
        return 1 / 0
