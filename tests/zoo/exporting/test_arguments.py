"""`export`: wrong arguments raise before anything is written."""

import importlib.util

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.errors import ExportError
from mobilenet_zoo.exporting import process
from tests.zoo.exporting import shared
from tests.zoo.exporting.shared import FILE_NAMES, SIZE, fail_if_called, images, names_in, tiny, with_head

pytestmark = pytest.mark.across


WRONG_ARGUMENTS = [
    ({"quantization": "int4"}, r"quantization='int4' is not supported.*'float16', 'dynamic', 'int8'"),
    ({"quantization": "int8"}, r"needs calibration: pass a folder or an array"),
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
    ({"float_blocks": ["stem"]}, r"float_blocks needs quantization"),
]


@pytest.mark.parametrize(
    ("options", "message"), WRONG_ARGUMENTS, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_wrong_argument_raises(options, message, model, existing_file, monkeypatch):
    monkeypatch.setattr(process, "run", fail_if_called)
    with pytest.raises(ValueError, match=message):
        mobilenet_zoo.export(model, existing_file, **options)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a.h5", r"a.h5' has the unknown extension '.h5'.*\.tflite, \.onnx, \.xml, \.pt2, or no extension"),
        ("folder.onnx", r"is a folder: pass the path of a file that ends with .onnx"),
        ("file", r"is a file, but a SavedModel is a folder"),
        ("folder", r"a folder that contains other files"),
    ],
)
def test_wrong_path_raises(path, message, model, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", fail_if_called)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("old")
    with pytest.raises(ValueError, match=message):
        mobilenet_zoo.export(model, tmp_path / path)
    assert names_in(tmp_path) == ["file", "folder", "folder.onnx"]
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("torch", {"quantization": "float16"}, r"'float16' is not supported for torch.export. Supported: none"),
        ("saved_model", {"quantization": "dynamic"}, r"'dynamic' is not supported for SavedModel"),
        ("openvino", {"quantization": "dynamic"}, r"not supported for OpenVINO. Supported: 'float16', 'int8'"),
        ("litert", {"batch_size": None}, r"batch_size=None is not allowed for LiteRT.*a number"),
    ],
)
def test_option_that_the_format_does_not_support_raises(format, options, message, model, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", fail_if_called)
    with pytest.raises(ValueError, match=message):
        mobilenet_zoo.export(model, tmp_path / FILE_NAMES[format], **options)
    assert names_in(tmp_path) == []


def test_free_height_and_width_need_image_size(existing_file):
    with pytest.raises(ValueError, match=r"takes images of any size.*image_size=224"):
        mobilenet_zoo.export(tiny(input_shape=(None, None, 3)), existing_file)


def test_image_size_that_does_not_fit_the_model_raises(existing_file, monkeypatch):
    """The dense layer on the flattened feature map fits only one image size."""
    monkeypatch.setattr(process, "run", shared.write_dummy_files)
    model = with_head(keras.layers.Flatten(), keras.layers.Dense(3))
    with pytest.raises(ExportError, match=r"own can't be built for images of size \(64, 48\)"):
        mobilenet_zoo.export(model, existing_file, image_size=(64, 48))


def test_include_softmax_without_classifier_raises(existing_file):
    for body in (tiny(include_top=False), tiny(include_top=False, pyramid_levels=(1, 2))):
        with pytest.raises(ValueError, match=r"include_softmax=True is for classifiers.*returns features"):
            mobilenet_zoo.export(body, existing_file, include_softmax=True)


def test_unsupported_model_raises(existing_file):
    inputs = [keras.Input((4, 4, 3)), keras.Input((4, 4, 3))]
    for model, message in (
        (keras.Sequential(), "needs a built model: start sequential"),  # a built Sequential model is accepted
        (keras.layers.Dense(1), "functional keras.Model, such as one from a create function, not a Dense"),
        (None, "functional keras.Model, such as one from a create function, not a NoneType"),
        (keras.Model(inputs, keras.layers.Add()(inputs)), "functional keras.Model with one input, but .* has 2 inputs"),
    ):
        with pytest.raises(ValueError, match=message):
            mobilenet_zoo.export(model, existing_file)


class OwnLayer(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def test_layer_defined_in_the_running_program_raises(existing_file, monkeypatch):
    monkeypatch.setattr(OwnLayer, "__module__", "__main__")
    with pytest.raises(ExportError, match=r"own has layers that are defined in the running program \(OwnLayer\)"):
        mobilenet_zoo.export(with_head(OwnLayer()), existing_file)


def test_modules_of_custom_layers_are_passed_to_the_process(model, existing_file, monkeypatch):
    passed_modules = []

    def run(backend, model_file, modules, jobs, folder):
        passed_modules.extend(modules)
        raise ExportError("enough")

    monkeypatch.setattr(process, "run", run)
    with pytest.raises(ExportError, match="enough"):
        mobilenet_zoo.export(with_head(OwnLayer()), existing_file)
    assert passed_modules == [OwnLayer.__module__]


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
def test_missing_library_raises(library, format, options, model, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", fail_if_called)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == library else find_spec(name, *rest)
    )
    with pytest.raises(ExportError, match=rf"needs {library}, which is not installed: pip install '.\[export\]'"):
        mobilenet_zoo.export(model, tmp_path / FILE_NAMES[format], **options)
    assert names_in(tmp_path) == []


# Calibration images


def calibration_images(count=20, **changes):
    return images(count, **changes)


def images_with_nan():
    x = calibration_images()
    x[3, 4, 5, 1] = np.nan
    return x


def image_folder(folder, count, names="{}.png", content=None):
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
        (lambda _: calibration_images(15), r"has 15 readable images, but at least 16 are required"),
        (lambda _: calibration_images(20, width=24), r"shape \(32, 24, 3\), but the exported file takes \(32, 32, 3\)"),
        (
            lambda _: calibration_images(20, channels=1),
            r"shape \(32, 32, 1\), but the exported file takes \(32, 32, 3\)",
        ),
        (lambda _: calibration_images()[0], r"images of shape \(32, 3\), but the exported file"),
        (lambda _: images_with_nan(), "contains NaN or infinity"),
        (
            lambda _: (calibration_images(20), [1] * 19),
            r"20 images, but labels of shape \(19,\): pass one label per image",
        ),
        (lambda folder: image_folder(folder / "few", 5), r"has 5 readable images"),
        (lambda folder: image_folder(folder / "none", 0), "no readable images"),
        (lambda folder: str(image_folder(folder / "bad", 20, content=b"no")), r"no readable images: .*0\.png"),
        (lambda folder: (image_folder(folder / "labels", 20), [1] * 21), r"20 images, but labels of shape \(21,\)"),
    ],
)
def test_wrong_calibration_images_raise(calibration, message, model, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", fail_if_called)
    target = tmp_path / "place"
    target.mkdir()
    (target / "a.onnx").write_bytes(b"old")
    with pytest.raises(ExportError, match=message):
        mobilenet_zoo.export(model, target / "a.onnx", quantization="int8", calibration=calibration(tmp_path))
    assert (target / "a.onnx").read_bytes() == b"old"
    assert names_in(target) == ["a.onnx"]
