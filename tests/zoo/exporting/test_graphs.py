"""The graphs of exported files: which operations they hold, and what else must not be in them."""

import collections
import warnings
from pathlib import Path

import pytest

import mobilenet_runtime
import mobilenet_zoo
from mobilenet_zoo.exporting import export_all, process
from tests import peers
from tests.zoo.exporting import shared
from tests.zoo.exporting.shared import PLACES, images

pytestmark = pytest.mark.across

ROOT = Path(__file__).resolve().parents[3]
CONVOLUTIONAL = {
    "mobilenetv1_025": {"convolutions": 27, "gates": 0, "hard_swishes": 0},
    "mobilenetv2_035": {"convolutions": 52, "gates": 0, "hard_swishes": 0},
    "mobilenetv3_small_050": {"convolutions": 52, "gates": 9, "hard_swishes": 19},
    "mobilenetv4_conv_small_035": {"convolutions": 46, "gates": 0, "hard_swishes": 0},
}
TIMM = ("mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_conv_medium", "mobilenetv4_hybrid_medium")


def small(name):
    """With Keras's own padding, which is the default of the create functions, and of 64 pixels."""
    return mobilenet_zoo.create_model(name, num_classes=7, input_shape=(64, 64, 3), padding="same")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """`{model: {format: file}}`, written without a look at their answers, which other tests have."""
    made = {}

    def give(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(process, "run", shared.here)
                reports = export_all(small(name), {folder / place: None for place in PLACES.values()}, verify=False)
                made[name] = {report.format: Path(report.path) for report in reports}
        return made[name]

    return give


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONAL)
class TestOperations:
    """Of convolutional models, by the numbers in the papers' tables."""

    def test_litert(self, name, files):
        found = mobilenet_runtime.load(files(name)["litert"]).operations()
        wanted = CONVOLUTIONAL[name]
        assert not {"TRANSPOSE", "PAD", "PADV2", "MIRROR_PAD", "RESHAPE"} & found.keys()
        assert found.get("HARD_SWISH", 0) == wanted["hard_swishes"]
        assert found["MEAN"] == wanted["gates"] + 1
        dense = found.get("FULLY_CONNECTED", 0)
        assert found["CONV_2D"] + found["DEPTHWISE_CONV_2D"] + dense >= wanted["convolutions"] + 1

    def test_litert_is_computed_by_its_fast_kernels(self, name, files):
        assert mobilenet_runtime.load(files(name)["litert"]).placement().keys() == {"XNNPACK"}

    def test_onnx(self, name, files):
        found = mobilenet_runtime.load(files(name)["onnx"]).operations()
        wanted = CONVOLUTIONAL[name]
        assert not {"Transpose", "BatchNormalization", "Div"} & found.keys()
        assert found.get("HardSwish", 0) == wanted["hard_swishes"]
        assert found["ReduceMean"] == wanted["gates"] + 1
        assert found.get("Reshape", 0) <= 1

    def test_openvino(self, name, files):
        found = mobilenet_runtime.load(files(name)["openvino"]).operations()
        wanted = CONVOLUTIONAL[name]
        assert not {"Transpose", "BatchNormInference", "Pad"} & found.keys()
        assert found.get("HSwish", 0) == wanted["hard_swishes"]
        assert found["ReduceMean"] == wanted["gates"] + 1

    def test_torch(self, name, files):
        found = mobilenet_runtime.load(files(name)["torch"]).operations()
        wanted = CONVOLUTIONAL[name]
        assert not [each for each in found if "norm" in each or "permute" in each or "assert" in each]
        assert found["aten.conv2d.default"] >= wanted["convolutions"]
        assert found.get("aten.hardswish.default", 0) == wanted["hard_swishes"]

    def test_saved_model(self, name, files):
        found = mobilenet_runtime.load(files(name)["saved_model"]).operations()
        wanted = CONVOLUTIONAL[name]
        assert not [each for each in found if "Norm" in each or "Variable" in each or each == "Transpose"]
        assert found["Conv2D"] + found["DepthwiseConv2dNative"] >= wanted["convolutions"]

    def test_no_file_says_where_it_was_made(self, name, files):
        words = [str(ROOT).encode(), b"site-packages", b".writing-"]
        for path in files(name).values():
            parts = (
                [*path.parent.glob("a.*")] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            )
            for part in parts:
                content = part.read_bytes()
                assert not [word for word in words if word in content], part


def test_integers_leave_nothing_to_the_interpreter_but_the_softmax(tmp_path):
    model = shared.learned(shared.tiny(norm_momentum=0.0), images(8))
    mobilenet_zoo.export(
        model, tmp_path / "a.tflite", quantization="int8", calibration=images(20), verify=10, float_blocks=()
    )
    loaded = mobilenet_runtime.load(tmp_path / "a.tflite")
    assert loaded.left_over().keys() <= {"SOFTMAX"}
    assert loaded.placement()["XNNPACK"] > 15


def theirs(name, path):
    """`{operation: how many}` of the file that timm's own model becomes by PyTorch's exporter."""
    import onnx
    import torch

    model = peers.timm().create_model(name).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), str(path), dynamo=True, verbose=False)
    return collections.Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_onnx_next_to_timms(name, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", shared.here)
    mobilenet_zoo.export(mobilenet_zoo.create_model(name, input_shape=(224, 224, 3)), tmp_path / "a.onnx", verify=False)
    ours = collections.Counter(mobilenet_runtime.load(tmp_path / "a.onnx").operations())
    other = theirs(name, tmp_path / "timm.onnx")
    assert ours["Conv"] == other["Conv"]
    assert ours["HardSwish"] == other["HardSwish"]
    for kind in ("Transpose", "Reshape", "Pad"):
        assert ours[kind] <= other[kind], kind
    # timm's model ends in logits.
    assert ours.total() - ours["Softmax"] <= other.total() - other["Softmax"], (ours, other)
