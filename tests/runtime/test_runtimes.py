"""Outputs of exported files match NumPy in every runtime, and files that can't be run raise clear errors."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mobilenet_runtime
from mobilenet_runtime import RuntimeFailure, RuntimeMissing
from mobilenet_runtime.runtimes import base
from tests.runtime import tiny

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "tflite": "LiteRT",
    "onnx": "ONNX Runtime",
    "xml": "OpenVINO",
    "pt2": "PyTorch",
    "saved_model": "TensorFlow",
}
KINDS = pytest.mark.parametrize("kind", tiny.FORMATS)


def assert_close(outputs, expected, tolerance=2e-4):
    assert outputs.dtype == np.float32
    assert outputs.shape == expected.shape
    assert np.abs(outputs - expected).max() <= tolerance * np.abs(expected).max()


@KINDS
class TestEveryFormat:
    def test_outputs_match_numpy(self, kind, tiny_file):
        model = mobilenet_runtime.load(tiny_file(kind))
        assert model.runtime.startswith(f"{NAMES[kind]} ")
        assert sorted(model.output_names) == sorted(tiny.OUTPUTS)
        images = tiny.images()
        outputs = model(images)
        assert list(outputs) == model.output_names
        for name in tiny.OUTPUTS:
            assert_close(outputs[name], tiny.expected(images)[name])

    def test_single_output_is_an_array(self, kind, tiny_file):
        model = mobilenet_runtime.load(tiny_file(kind, outputs=("probabilities",)))
        assert_close(model(tiny.images(2)), tiny.expected(tiny.images(2))["probabilities"])

    def test_feature_map_can_be_the_only_output(self, kind, tiny_file):
        model = mobilenet_runtime.load(tiny_file(kind, outputs=("map",)))
        assert_close(model(tiny.images(2)), tiny.expected(tiny.images(2))["map"])

    def test_fixed_batch_size_takes_any_number_of_images(self, kind, tiny_file):
        model = mobilenet_runtime.load(tiny_file(kind, batch=2))
        assert model.batch_size == 2
        for count in (1, 2, 5):
            images = tiny.images(count)
            for name, values in model(images).items():
                assert_close(values, tiny.expected(images)[name])

    def test_dynamic_size_takes_images_of_any_size(self, kind, tiny_file):
        model = mobilenet_runtime.load(tiny_file(kind, size=None))
        assert model.image_shape == (None, None, tiny.CHANNELS)
        for size in (6, 9):
            images = tiny.images(2, size)
            assert_close(model(images)["map"], tiny.expected(images)["map"])
        with pytest.raises(ValueError, match="images of any size"):
            _ = model.size

    def test_input_shape_and_layout(self, kind, tiny_file):
        model = mobilenet_runtime.load(tiny_file(kind))
        assert (model.batch_size, model.size) == (None, (tiny.SIZE, tiny.SIZE))
        is_channels_last = kind in ("tflite", "saved_model")
        assert model.data_format == ("channels_last" if is_channels_last else "channels_first")
        assert model.input_shape == ((None, 8, 8, 3) if is_channels_last else (None, 3, 8, 8))

    @pytest.mark.parametrize("shape", [(0, 8, 8, 3), (1, 8, 9, 3), (1, 8, 8, 1), (1, 3, 8, 8), (8, 8, 3)])
    def test_wrong_image_shapes_raise_value_error(self, shape, kind, tiny_file):
        model = mobilenet_runtime.load(tiny_file(kind))
        with pytest.raises(ValueError, match=r"not allowed: .* takes \(batch, 8, 8, 3\)"):
            model(np.zeros(shape))

    def test_operations_and_placement(self, kind, tiny_file):
        model = mobilenet_runtime.load(tiny_file(kind))
        operations = model.operations()
        assert sum("conv" in name.lower() for name in operations) == 1
        assert sum("softmax" in name.lower() for name in operations) == 1
        expected = {
            "tflite": {"XNNPACK": 4},  # ReLU is part of the convolution
            "onnx": {"CPUExecutionProvider": 5},
            "pt2": {"PyTorch": 5},
            "saved_model": {"TensorFlow": sum(operations.values())},
        }
        if kind == "xml":
            assert model.placement().keys() == {"CPU f32"}
            assert model.placement()["CPU f32"] >= 5
        else:
            assert model.placement() == expected[kind]

    def test_damaged_file_raises_runtime_failure(self, kind, tiny_file, tmp_path):
        path = tmp_path / tiny_file(kind).name
        if kind == "saved_model":
            shutil.copytree(tiny_file(kind), path)
            damaged = path / "saved_model.pb"
        else:
            shutil.copy(tiny_file(kind), path)
            damaged = path
        original = damaged.read_bytes()
        for content in (b"no model at all", original[: len(original) // 2]):
            damaged.write_bytes(content)
            with pytest.raises(RuntimeFailure, match=rf"{NAMES[kind]} [\d.]+ can't load .*{path.name}: [\w\[].*again"):
                mobilenet_runtime.load(path)

    def test_missing_library_raises_runtime_missing(self, kind, tiny_file, monkeypatch):
        path = tiny_file(kind)
        library = tiny.FORMATS[kind][-1]
        for name in [name for name in sys.modules if name.partition(".")[0] == library]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(RuntimeMissing, match=rf"{library}, which is not installed .*install '\.\[(export|\w+)\]\'"):
            mobilenet_runtime.load(path)

    def test_neither_keras_nor_another_backend_is_imported(self, kind, tiny_file):
        code = """if True:
            import sys
            import numpy as np
            import mobilenet_runtime
            model = mobilenet_runtime.load(sys.argv[1], threads=1)
            model(np.zeros((1, 8, 8, 3)))
            model.placement()
            print(*{name.partition(".")[0] for name in sys.modules})
        """
        command = [sys.executable, "-c", code, str(tiny_file(kind))]
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        variables = {"PYTHONPATH": paths, "KERAS_BACKEND": "tensorflow"}
        result = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        frameworks = {"keras", "tensorflow", "jax", "torch", "mobilenet_zoo"} & set(result.stdout.split())
        if kind == "saved_model":  # TensorFlow itself imports Keras and its backend
            frameworks &= {"mobilenet_zoo"}
        assert frameworks == ({"torch"} if kind == "pt2" else set())


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "xml" else [pytest.mark.slow]) for kind in tiny.FORMATS]
)
def test_signals_are_handled_after_another_thread_has_released_a_model(kind, tiny_file):
    code = """if True:
        import gc, signal, sys, threading
        import numpy as np
        import mobilenet_runtime
        models = [mobilenet_runtime.load(sys.argv[1], threads=1)]
        models[0](np.zeros((1, 8, 8, 3)))
        thread = threading.Thread(target=models.clear)
        thread.start()
        thread.join()
        gc.collect()
        signal.signal(signal.SIGTERM, lambda *_: print("handled"))
        signal.raise_signal(signal.SIGTERM)
    """
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", code, str(tiny_file(kind))]
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, "handled"), result.stderr


class TestLiteRt:
    @pytest.mark.parametrize("integers", ["int8", "uint8"])
    def test_integer_inputs_and_outputs_are_converted(self, integers, tiny_file):
        model = mobilenet_runtime.load(tiny_file("tflite", integers=integers, outputs=("logits",)))
        images = tiny.images(6)
        assert_close(model(images), tiny.expected(images)["logits"], tolerance=0.05)
        large, larger = (model(np.sign(images) * scale) for scale in (1e2, 1e4))
        np.testing.assert_array_equal(large, larger, "values outside the 8-bit range are clipped")

    def test_integer_input_without_scale_is_rounded_and_clipped(self):
        from mobilenet_runtime.runtimes.litert import _quantized

        quantized = _quantized(np.float32([-3, 0.6, 254.5, 300]), {"dtype": np.uint8, "quantization": (0.0, 0)})
        np.testing.assert_array_equal(quantized, [0, 1, 254, 255])

    def test_unsupported_operation_is_left_to_interpreter(self, tiny_file):
        model = mobilenet_runtime.load(tiny_file("tflite", unsupported=True, batch=1))
        assert model.left_over() == {"CUMSUM": 1}
        operations = sum(model.operations().values())
        assert operations > 5
        assert model.placement() == {"XNNPACK": operations - 1, "interpreter": 1}
        images = tiny.images()
        assert_close(model(images)["probabilities"], tiny.expected(images)["probabilities"])
        assert model.placement() == {"XNNPACK": operations - 1, "interpreter": 1}, "unchanged after a prediction"

    def test_placement_requires_fixed_size(self, tiny_file):
        with pytest.raises(ValueError, match="any size"):
            mobilenet_runtime.load(tiny_file("tflite", size=None)).placement()


def test_onnx_file_with_channels_last(tiny_file):
    model = mobilenet_runtime.load(tiny_file("onnx", layout="NHWC"))
    assert model.data_format == "channels_last"
    assert_close(model(tiny.images())["map"], tiny.expected(tiny.images())["map"])


def test_two_inputs_raise_runtime_failure(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    axes = [1, 3, 8, 8]
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, axes) for name in "ab"]
    output = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, axes)
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["a", "b"], ["c"])], "two", inputs, [output])
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "two.onnx")
    with pytest.raises(RuntimeFailure, match="one batch of images"):
        mobilenet_runtime.load(tmp_path / "two.onnx")


class TestLoad:
    def test_paths_that_are_not_exported_files_raise_value_error(self, tmp_path):
        (tmp_path / "weights.pth").write_bytes(b"")
        with pytest.raises(ValueError, match="unknown extension '.pth'. Known: .tflite, .onnx"):
            mobilenet_runtime.load(tmp_path / "weights.pth")
        with pytest.raises(ValueError, match="absent.onnx does not exist"):
            mobilenet_runtime.load(tmp_path / "absent.onnx")
        with pytest.raises(ValueError, match="without a saved_model.pb"):
            mobilenet_runtime.load(tmp_path)
        with pytest.raises(ValueError, match="threads=0"):
            mobilenet_runtime.load(tmp_path / "absent.onnx", threads=0)

    def test_is_exported(self, tmp_path):
        assert not mobilenet_runtime.is_exported(tmp_path)
        assert not mobilenet_runtime.is_exported(tmp_path / "absent.onnx")
        assert not mobilenet_runtime.is_exported("mobilenetv2_100")
        for name in ("a.tflite", "a.onnx", "a.xml", "a.pt2", "saved_model.pb"):
            (tmp_path / name).touch()
        assert all(mobilenet_runtime.is_exported(tmp_path / f"a{ending}") for ending in (".tflite", ".onnx", ".pt2"))
        assert mobilenet_runtime.is_exported(str(tmp_path / "a.xml"))
        assert mobilenet_runtime.is_exported(tmp_path), "a SavedModel"


@pytest.mark.parametrize(
    "message, reason",
    [
        ("one\ntwo", "one"),
        ("Exception from src/core.cpp:84:\nCheck 'size' failed at src/core.cpp:3:\nNo weights!\n\n", "No weights"),
        ("Check 'size' failed at src/core.cpp:3:\n", "Check 'size' failed at src/core.cpp:3:"),
        ("", "KeyError"),
    ],
)
def test_reason_is_first_informative_line_of_message(message, reason):
    error = KeyError() if not message else RuntimeError(message)
    with pytest.raises(RuntimeFailure) as caught, base.opening_errors("a.xml", "OpenVINO 1"):
        raise error
    assert str(caught.value).startswith(f"OpenVINO 1 can't load a.xml: {reason}. If")
