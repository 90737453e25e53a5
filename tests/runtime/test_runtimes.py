"""Exported files answer in their own runtimes as NumPy does, and what can't be run is reported."""

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


def close(found, expected, tolerance=2e-4):
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@KINDS
class TestEveryFormat:
    def test_answers(self, kind, written):
        model = mobilenet_runtime.load(written(kind))
        assert model.runtime.startswith(f"{NAMES[kind]} ")
        assert sorted(model.output_names) == sorted(tiny.OUTPUTS)
        images = tiny.images()
        found = model(images)
        assert list(found) == model.output_names
        for name in tiny.OUTPUTS:
            close(found[name], tiny.expected(images)[name])

    def test_one_output_is_an_array(self, kind, written):
        model = mobilenet_runtime.load(written(kind, outputs=("probabilities",)))
        close(model(tiny.images(2)), tiny.expected(tiny.images(2))["probabilities"])

    def test_a_map_alone(self, kind, written):
        model = mobilenet_runtime.load(written(kind, outputs=("map",)))
        close(model(tiny.images(2)), tiny.expected(tiny.images(2))["map"])

    def test_any_number_of_images_in_batches_of_two(self, kind, written):
        model = mobilenet_runtime.load(written(kind, batch=2))
        assert model.batch_size == 2
        for count in (1, 2, 5):
            images = tiny.images(count)
            for name, answers in model(images).items():
                close(answers, tiny.expected(images)[name])

    def test_a_file_of_any_size_takes_it_from_the_images(self, kind, written):
        model = mobilenet_runtime.load(written(kind, size=None))
        assert model.image_shape == (None, None, tiny.CHANNELS)
        for size in (6, 9):
            images = tiny.images(2, size)
            close(model(images)["map"], tiny.expected(images)["map"])
        with pytest.raises(ValueError, match="images of any size"):
            _ = model.size

    def test_what_it_takes(self, kind, written):
        model = mobilenet_runtime.load(written(kind))
        assert (model.batch_size, model.size) == (None, (tiny.SIZE, tiny.SIZE))
        last = kind in ("tflite", "saved_model")
        assert model.data_format == ("channels_last" if last else "channels_first")
        assert model.input_shape == ((None, 8, 8, 3) if last else (None, 3, 8, 8))

    @pytest.mark.parametrize("shape", [(0, 8, 8, 3), (1, 8, 9, 3), (1, 8, 8, 1), (1, 3, 8, 8), (8, 8, 3)])
    def test_other_images_are_refused(self, shape, kind, written):
        model = mobilenet_runtime.load(written(kind))
        with pytest.raises(ValueError, match=r"not allowed: .* takes \(batch, 8, 8, 3\)"):
            model(np.zeros(shape))

    def test_operations_and_who_computes_them(self, kind, written):
        model = mobilenet_runtime.load(written(kind))
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

    def test_a_damaged_file(self, kind, written, tmp_path):
        path = tmp_path / written(kind).name
        if kind == "saved_model":
            shutil.copytree(written(kind), path)
            damaged = path / "saved_model.pb"
        else:
            shutil.copy(written(kind), path)
            damaged = path
        whole = damaged.read_bytes()
        for content in (b"no model at all", whole[: len(whole) // 2]):
            damaged.write_bytes(content)
            with pytest.raises(RuntimeFailure, match=rf"{NAMES[kind]} [\d.]+ refuses .*{path.name}: [\w\[].*again"):
                mobilenet_runtime.load(path)

    def test_a_library_that_is_missing(self, kind, written, monkeypatch):
        path = written(kind)
        library = tiny.FORMATS[kind][-1]
        for name in [name for name in sys.modules if name.partition(".")[0] == library]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(RuntimeMissing, match=rf"{library}, which is not installed .*install '\.\[(export|\w+)\]\'"):
            mobilenet_runtime.load(path)

    def test_neither_keras_nor_another_backend_is_imported(self, kind, written):
        code = """if True:
            import sys
            import numpy as np
            import mobilenet_runtime
            model = mobilenet_runtime.load(sys.argv[1], threads=1)
            model(np.zeros((1, 8, 8, 3)))
            model.placement()
            print(*{name.partition(".")[0] for name in sys.modules})
        """
        command = [sys.executable, "-c", code, str(written(kind))]
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        own = {"PYTHONPATH": paths, "KERAS_BACKEND": "tensorflow"}
        result = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        foreign = {"keras", "tensorflow", "jax", "torch", "mobilenet_zoo"} & set(result.stdout.split())
        if kind == "saved_model":  # TensorFlow imports Keras by itself, and that its backend
            foreign &= {"mobilenet_zoo"}
        assert foreign == ({"torch"} if kind == "pt2" else set())


class TestLiteRt:
    @pytest.mark.parametrize("integers", ["int8", "uint8"])
    def test_integers_are_made_and_made_real(self, integers, written):
        model = mobilenet_runtime.load(written("tflite", integers=integers, outputs=("logits",)))
        images = tiny.images(6)
        close(model(images), tiny.expected(images)["logits"], tolerance=0.05)
        beyond, further = (model(np.sign(images) * far) for far in (1e2, 1e4))
        np.testing.assert_array_equal(beyond, further, "what 8 bits don't hold is cut, and doesn't wrap round")

    def test_pixels_that_are_integers_without_a_scale(self):
        from mobilenet_runtime.runtimes.litert import _quantized

        found = _quantized(np.float32([-3, 0.6, 254.5, 300]), {"dtype": np.uint8, "quantization": (0.0, 0)})
        np.testing.assert_array_equal(found, [0, 1, 254, 255])

    def test_what_xnnpack_leaves_over(self, written):
        model = mobilenet_runtime.load(written("tflite", unsupported=True, batch=1))
        assert model.left_over() == {"CUMSUM": 1}
        operations = sum(model.operations().values())
        assert operations > 5
        assert model.placement() == {"XNNPACK": operations - 1, "interpreter": 1}
        images = tiny.images()
        close(model(images)["probabilities"], tiny.expected(images)["probabilities"])
        assert model.placement() == {"XNNPACK": operations - 1, "interpreter": 1}, "the same after it ran"

    def test_where_it_runs_can_be_told_for_a_size_only(self, written):
        with pytest.raises(ValueError, match="any size"):
            mobilenet_runtime.load(written("tflite", size=None)).placement()


def test_an_onnx_file_with_channels_last(written):
    model = mobilenet_runtime.load(written("onnx", layout="NHWC"))
    assert model.data_format == "channels_last"
    close(model(tiny.images())["map"], tiny.expected(tiny.images())["map"])


def test_two_inputs_are_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    axes = [1, 3, 8, 8]
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, axes) for name in "ab"]
    output = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, axes)
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["a", "b"], ["c"])], "two", inputs, [output])
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "two.onnx")
    with pytest.raises(RuntimeFailure, match="takes one batch of images"):
        mobilenet_runtime.load(tmp_path / "two.onnx")


class TestLoad:
    def test_what_is_no_exported_file(self, tmp_path):
        (tmp_path / "weights.pth").write_bytes(b"")
        with pytest.raises(ValueError, match="unknown ending '.pth'. Known: .tflite, .onnx"):
            mobilenet_runtime.load(tmp_path / "weights.pth")
        with pytest.raises(ValueError, match="absent.onnx does not exist"):
            mobilenet_runtime.load(tmp_path / "absent.onnx")
        with pytest.raises(ValueError, match="without a saved_model.pb"):
            mobilenet_runtime.load(tmp_path)
        with pytest.raises(ValueError, match="threads=0"):
            mobilenet_runtime.load(tmp_path / "absent.onnx", threads=0)

    def test_what_is_one(self, tmp_path):
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
def test_the_reason_is_the_first_line_that_says_something(message, reason):
    error = KeyError() if not message else RuntimeError(message)
    with pytest.raises(RuntimeFailure) as caught, base.refusals("a.xml", "OpenVINO 1"):
        raise error
    assert str(caught.value).startswith(f"OpenVINO 1 refuses a.xml: {reason}. Export")
