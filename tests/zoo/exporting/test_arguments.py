"""export: wrong arguments are found before anything is written."""

import importlib.util

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.errors import ExportError
from mobilenet_zoo.exporting import process
from tests.zoo.exporting import shared
from tests.zoo.exporting.shared import PLACES, SIZE, images, left, no_process, tiny, with_a_head

pytestmark = pytest.mark.across


BAD = [
    ({"quantization": "int4"}, r"quantization='int4' is not offered.*'float16', 'dynamic', 'int8'"),
    ({"quantization": "int8"}, r"needs calibration: a folder or an array"),
    ({"batch_size": 0}, r"batch_size=0 is not allowed"),
    ({"batch_size": 1.5}, r"batch_size=1.5 is not allowed"),
    ({"image_size": (32, 32, 3)}, r"image_size=\(32, 32, 3\) is not allowed.*pair"),
    ({"image_size": 0}, r"image_size=0 is not allowed"),
    ({"format": "litert"}, r"a.onnx'? is not allowed with format='litert': it must end with .tflite"),
    ({"format": "onnxx"}, r"format='onnxx' is not known. Did you mean 'onnx'"),
    ({"include_preprocessing": "yes"}, r"include_preprocessing='yes'"),
    ({"include_softmax": "no"}, r"include_softmax='no'"),
    ({"metadata": None}, r"metadata=None"),
    ({"verify": None}, r"verify=None is not allowed"),
    ({"verify": -1}, r"verify=-1 is not allowed"),
    ({"verify": "often"}, r"verify='often' is not allowed"),
    (
        {"quantization": "dynamic", "float_blocks": ["stage2_block3"]},
        r"float_blocks='stage2_block3' is not known. Did you mean 'stage2_block",
    ),
    ({"float_blocks": ["stem"]}, r"float_blocks is for quantization"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_a_wrong_argument(options, message, model, old, monkeypatch):
    monkeypatch.setattr(process, "run", no_process)
    with pytest.raises(ValueError, match=message):
        mobilenet_zoo.export(model, old, **options)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a.h5", r"a.h5' ends with '.h5', which is no format.*\.tflite, \.onnx, \.xml, \.pt2, or no ending"),
        ("folder.onnx", r"is a folder: name a file in it that ends with .onnx"),
        ("file", r"is a file, and a SavedModel is a folder"),
        ("folder", r"a folder with something else in it"),
    ],
)
def test_a_wrong_path(path, message, model, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", no_process)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("old")
    with pytest.raises(ValueError, match=message):
        mobilenet_zoo.export(model, tmp_path / path)
    assert left(tmp_path) == ["file", "folder", "folder.onnx"]
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("torch", {"quantization": "float16"}, r"'float16' is not offered for torch.export. Offered: none"),
        ("saved_model", {"quantization": "dynamic"}, r"'dynamic' is not offered for SavedModel"),
        ("openvino", {"quantization": "dynamic"}, r"not offered for OpenVINO. Offered: 'float16', 'int8'"),
        ("litert", {"batch_size": None}, r"batch_size=None is not allowed for LiteRT.*a number"),
    ],
)
def test_what_a_format_can_not_hold(format, options, message, model, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", no_process)
    with pytest.raises(ValueError, match=message):
        mobilenet_zoo.export(model, tmp_path / PLACES[format], **options)
    assert left(tmp_path) == []


def test_free_height_and_width_need_a_size(old):
    with pytest.raises(ValueError, match=r"takes images of any size.*image_size=224"):
        mobilenet_zoo.export(tiny(input_shape=(None, None, 3)), old)


def test_a_size_that_the_model_can_not_take(old, monkeypatch):
    """One whose own head was made for its own size."""
    monkeypatch.setattr(process, "run", shared.nothing)
    model = with_a_head(keras.layers.Flatten(), keras.layers.Dense(3))
    with pytest.raises(ExportError, match=r"own can't be built for images of \(64, 48\)"):
        mobilenet_zoo.export(model, old, image_size=(64, 48))


def test_softmax_is_for_classifiers(old):
    for body in (tiny(include_top=False), tiny(include_top=False, pyramid_levels=(1, 2))):
        with pytest.raises(ValueError, match=r"include_softmax=True is for classifiers.*gives features"):
            mobilenet_zoo.export(body, old, include_softmax=True)


def test_only_functional_models(old):
    two = [keras.Input((4, 4, 3)), keras.Input((4, 4, 3))]
    for other, message in (
        (keras.Sequential(), "takes models that are built: start sequential"),  # a built one is exported
        (keras.layers.Dense(1), "functional keras.Model, such as the create functions build, not a Dense"),
        (None, "functional keras.Model, such as the create functions build, not a NoneType"),
        (keras.Model(two, keras.layers.Add()(two)), "functional keras.Model with one input, and .* has 2"),
    ):
        with pytest.raises(ValueError, match=message):
            mobilenet_zoo.export(other, old)


class OwnLayer(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def test_a_layer_that_only_the_program_knows(old, monkeypatch):
    monkeypatch.setattr(OwnLayer, "__module__", "__main__")
    with pytest.raises(ExportError, match=r"own has layers that only the running program knows \(OwnLayer\)"):
        mobilenet_zoo.export(with_a_head(OwnLayer()), old)


def test_a_layer_of_a_module_is_announced(model, old, monkeypatch):
    announced = []

    def run(backend, model_file, modules, jobs, folder):
        announced.extend(modules)
        raise ExportError("enough")

    monkeypatch.setattr(process, "run", run)
    with pytest.raises(ExportError, match="enough"):
        mobilenet_zoo.export(with_a_head(OwnLayer()), old)
    assert announced == [OwnLayer.__module__]


@pytest.mark.parametrize(
    ("library", "format", "options"),
    [
        ("torch", "onnx", {}),
        ("onnxscript", "openvino", {}),
        ("tensorflow", "litert", {}),
        ("ai_edge_litert", "litert", {}),
        ("ai_edge_quantizer", "litert", {"quantization": "dynamic"}),
        ("nncf", "openvino", {"quantization": "int8", "calibration": np.zeros((16, SIZE, SIZE, 3))}),
    ],
)
def test_a_missing_library(library, format, options, model, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", no_process)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == library else find(name, *rest))
    with pytest.raises(ExportError, match=rf"needs {library}, which is not installed: pip install '.\[export\]'"):
        mobilenet_zoo.export(model, tmp_path / PLACES[format], **options)
    assert left(tmp_path) == []


# Images to calibrate with


def numbers(count=20, **changes):
    return images(count, **changes)


def not_finite():
    x = numbers()
    x[3, 4, 5, 1] = np.nan
    return x


def folder_of(folder, count, names="{}.png", content=None):
    from PIL import Image

    folder.mkdir()
    for i in range(count):
        path = folder / names.format(i)
        if content is not None:
            path.write_bytes(content)
        else:
            Image.fromarray(np.full((40, 50, 3), i, "uint8")).save(path)
    return folder


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (lambda _: numbers(15), r"holds 15 images that can be read, and at least 16 are needed"),
        (lambda _: numbers(20, width=24), r"shape \(32, 24, 3\), but the file will take \(32, 32, 3\)"),
        (lambda _: numbers(20, channels=1), r"shape \(32, 32, 1\), but the file will take \(32, 32, 3\)"),
        (lambda _: numbers()[0], r"images of shape \(32, 3\), but the file"),
        (lambda _: not_finite(), "numbers that are not finite"),
        (lambda _: (numbers(20), [1] * 19), r"20 images and labels of shape \(19,\): one each"),
        (lambda folder: folder_of(folder / "few", 5), r"holds 5 images that can be read"),
        (lambda folder: folder_of(folder / "none", 0), "no image that can be read"),
        (lambda folder: str(folder_of(folder / "bad", 20, content=b"no")), r"no image that can be read: .*0\.png"),
        (lambda folder: (folder_of(folder / "labels", 20), [1] * 21), r"20 images and labels of shape \(21,\)"),
    ],
)
def test_images_that_do_not_do(calibration, message, model, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", no_process)
    place = tmp_path / "place"
    place.mkdir()
    (place / "a.onnx").write_bytes(b"old")
    with pytest.raises(ExportError, match=message):
        mobilenet_zoo.export(model, place / "a.onnx", quantization="int8", calibration=calibration(tmp_path))
    assert (place / "a.onnx").read_bytes() == b"old"
    assert left(place) == ["a.onnx"]
