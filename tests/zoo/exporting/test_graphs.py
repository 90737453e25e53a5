"""The graphs of exported files: their operations, and contents that must be absent."""

import collections
import warnings
from pathlib import Path

import pytest

import mobilenet_runtime
import mobilenet_zoo
from mobilenet_zoo.exporting import export_all, process
from tests import peers
from tests.zoo.exporting import shared
from tests.zoo.exporting.shared import FILE_NAMES, images

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[3]
CONVOLUTIONAL = {
    "mobilenetv1_025": {"convolutions": 27, "gates": 0, "hard_swishes": 0},
    "mobilenetv2_035": {"convolutions": 52, "gates": 0, "hard_swishes": 0},
    "mobilenetv3_small_050": {"convolutions": 52, "gates": 9, "hard_swishes": 19},
    "mobilenetv4_conv_small_035": {"convolutions": 46, "gates": 0, "hard_swishes": 0},
}
TIMM = ("mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_conv_medium", "mobilenetv4_hybrid_medium")


def small_model(name):
    """Return a model for images of 64×64, with Keras's padding, which is the default of the create functions."""
    return mobilenet_zoo.create_model(name, num_classes=7, input_shape=(64, 64, 3), padding="same")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a function that exports a model to every format, without verification, and returns `{format: path}`."""
    cache = {}

    def export(name):
        if name not in cache:
            folder = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(process, "run", shared.run_here)
                reports = export_all(
                    small_model(name), {folder / file_name: None for file_name in FILE_NAMES.values()}, verify=False
                )
                cache[name] = {report.format: Path(report.path) for report in reports}
        return cache[name]

    return export


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONAL)
class TestOperations:
    """Operations of convolutional models, compared with the numbers of layers in the papers' tables."""

    def test_litert_operations(self, name, files):
        operations = mobilenet_runtime.load(files(name)["litert"]).operations()
        expected = CONVOLUTIONAL[name]
        assert not {"TRANSPOSE", "PAD", "PADV2", "MIRROR_PAD", "RESHAPE"} & operations.keys()
        assert operations.get("HARD_SWISH", 0) == expected["hard_swishes"]
        assert operations["MEAN"] == expected["gates"] + 1
        dense = operations.get("FULLY_CONNECTED", 0)
        assert operations["CONV_2D"] + operations["DEPTHWISE_CONV_2D"] + dense >= expected["convolutions"] + 1

    def test_litert_runs_on_xnnpack(self, name, files):
        assert mobilenet_runtime.load(files(name)["litert"]).placement().keys() == {"XNNPACK"}

    def test_onnx_operations(self, name, files):
        operations = mobilenet_runtime.load(files(name)["onnx"]).operations()
        expected = CONVOLUTIONAL[name]
        assert not {"Transpose", "BatchNormalization", "Div"} & operations.keys()
        assert operations.get("HardSwish", 0) == expected["hard_swishes"]
        assert operations["ReduceMean"] == expected["gates"] + 1
        assert operations.get("Reshape", 0) <= 1

    def test_openvino_operations(self, name, files):
        operations = mobilenet_runtime.load(files(name)["openvino"]).operations()
        expected = CONVOLUTIONAL[name]
        assert not {"Transpose", "BatchNormInference", "Pad"} & operations.keys()
        assert operations.get("HSwish", 0) == expected["hard_swishes"]
        assert operations["ReduceMean"] == expected["gates"] + 1

    def test_torch_operations(self, name, files):
        operations = mobilenet_runtime.load(files(name)["torch"]).operations()
        expected = CONVOLUTIONAL[name]
        assert not [
            operation
            for operation in operations
            if "norm" in operation or "permute" in operation or "assert" in operation
        ]
        assert operations["aten.conv2d.default"] >= expected["convolutions"]
        assert operations.get("aten.hardswish.default", 0) == expected["hard_swishes"]

    def test_saved_model_operations(self, name, files):
        operations = mobilenet_runtime.load(files(name)["saved_model"]).operations()
        expected = CONVOLUTIONAL[name]
        assert not [
            operation
            for operation in operations
            if "Norm" in operation or "Variable" in operation or operation == "Transpose"
        ]
        assert operations["Conv2D"] + operations["DepthwiseConv2dNative"] >= expected["convolutions"]

    def test_files_contain_no_paths_of_the_exporting_machine(self, name, files):
        words = [str(ROOT).encode(), b"site-packages", b".writing-"]
        for path in files(name).values():
            parts = (
                [*path.parent.glob("a.*")] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            )
            for part in parts:
                content = part.read_bytes()
                assert not [word for word in words if word in content], part


def test_xnnpack_runs_all_int8_operations_but_the_softmax(tmp_path):
    model = shared.with_batch_statistics(shared.tiny(norm_momentum=0.0), images(8))
    mobilenet_zoo.export(
        model, tmp_path / "a.tflite", quantization="int8", calibration=images(20), verify=10, float_blocks=()
    )
    loaded = mobilenet_runtime.load(tmp_path / "a.tflite")
    assert loaded.left_over().keys() <= {"SOFTMAX"}
    assert loaded.placement()["XNNPACK"] > 15


def timm_operations(name, path):
    """Return `{operation: count}` of the ONNX file that PyTorch exports from timm's model."""
    import onnx
    import torch

    model = peers.timm().create_model(name).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), str(path), dynamo=True, verbose=False)
    return collections.Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_onnx_has_no_more_operations_than_timm(name, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", shared.run_here)
    mobilenet_zoo.export(mobilenet_zoo.create_model(name, input_shape=(224, 224, 3)), tmp_path / "a.onnx", verify=False)
    operations = collections.Counter(mobilenet_runtime.load(tmp_path / "a.onnx").operations())
    expected = timm_operations(name, tmp_path / "timm.onnx")
    assert operations["Conv"] == expected["Conv"]
    assert operations["HardSwish"] == expected["HardSwish"]
    for kind in ("Transpose", "Reshape", "Pad"):
        assert operations[kind] <= expected[kind], kind
    # timm's model returns logits, without a softmax.
    assert operations.total() - operations["Softmax"] <= expected.total() - expected["Softmax"], (operations, expected)
