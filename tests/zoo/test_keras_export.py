"""Keras's `model.export`, and the exporters of PyTorch, TensorFlow and JAX, on MobileNets."""

import keras
import numpy as np
import pytest
from keras import ops

import mobilenet_zoo
from mobilenet_common.architecture import Architecture, Attention, Conv, Head, Inverted, Universal
from mobilenet_common.layers import MobileAttention
from mobilenet_v4 import create_mobilenetv4
from tests.common.layers import random_array, randomize

BACKEND = keras.backend.backend()
SIZE = 32
TINY = Architecture(
    name="tiny",
    stem=Conv(8, stride=2),
    stages=(
        (Inverted(3, 16, 8, squeeze=0.5, activation="hard_swish"), Inverted(5, 16, 16, stride=2)),
        (
            Attention(16, 2, 4, kv_kernel=3, kv_stride=2, attention_dropout=0.1),
            Universal(3, 3, 24, 16, layer_scale=0.5),
        ),
    ),
    head=Head(conv=Conv(24, kernel=1)),
)


def run_onnx(path, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def run_openvino(path, x):
    import openvino

    return openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]


def run_litert(path, x):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    input_index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(input_index, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(input_index, x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def run_saved_model(path, x):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return loaded.serve(x).numpy()


def run_torch(path, x):
    import torch

    return torch.export.load(path).module()(torch.tensor(x)).detach().numpy()


FORMATS = {
    "onnx": ("a.onnx", run_onnx),
    "openvino": ("a.xml", run_openvino),
    "litert": ("a.tflite", run_litert),
    "tf_saved_model": ("a", run_saved_model),
    "torch": ("a.pt2", run_torch),
}
# Formats that Keras exports under each backend with the packages of the extra "export".
SUPPORTED = {
    "torch": ("onnx", "openvino", "torch"),
    "tensorflow": ("openvino", "litert", "tf_saved_model"),
    "jax": ("tf_saved_model",),
}[BACKEND]
FAST = ("onnx", "openvino") if BACKEND == "torch" else ()


def tiny(**options):
    return randomize(create_mobilenetv4(TINY, **{"num_classes": 5, "input_shape": (SIZE, SIZE, 3)} | options))


def assert_predicts(outputs, model, x):
    """Assert that `outputs` equal the outputs of `model` for `x`."""
    expected = ops.convert_to_numpy(model(x, training=False))
    assert outputs.shape == expected.shape
    assert np.abs(outputs - expected).max() <= 2e-4 * np.abs(expected).max()


def assert_exports(model, format, folder, batch=None):
    """Export `model` with Keras, and assert that the file predicts the same as the model."""
    name, run = FORMATS[format]
    path = str(folder / name)
    size = model.input_shape[1:]
    options = {}
    if batch is not None:
        options["input_signature"] = [keras.InputSpec(shape=(batch, *size), dtype="float32", name="image")]
    elif format == "torch":
        import torch

        options["dynamic_shapes"] = {0: torch.export.Dim("batch", max=1024)}
    x = random_array(batch or 3, *size)
    model(x, training=False)  # Keras can't export a model to ONNX before the model's first call.
    model.export(path, format=format, verbose=False, **options)
    assert_predicts(run(path, x), model, x)


@pytest.mark.parametrize("batch", [None, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("format", [pytest.param(f, marks=[] if f in FAST else [pytest.mark.slow]) for f in SUPPORTED])
def test_keras_exports_tiny_model(format, batch, tmp_path):
    assert_exports(tiny(classifier_activation=None), format, tmp_path, batch)


@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("format", SUPPORTED)
@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv1_025",
        "mobilenetv2_035",
        "mobilenetv3_small_050",
        "mobilenetv4_conv_small_050",
        "mobilenetv4_hybrid_medium",
        "mobilenetv4_compact_small",
    ],
)
def test_keras_exports_every_generation(name, format, data_format, tmp_path):
    shape = (64, 64, 3) if data_format == "channels_last" else (3, 64, 64)
    # OpenVINO can't read TensorFlow graphs whose depthwise convolutions pad explicitly, as symmetric padding does.
    padding = "same" if (BACKEND, format) == ("tensorflow", "openvino") else None
    options = {"classifier_activation": None, "data_format": data_format, "padding": padding}
    model = mobilenet_zoo.create_model(name, num_classes=5, input_shape=shape, **options)
    assert_exports(model, format, tmp_path)


@pytest.mark.skipif(BACKEND != "torch", reason="tests exporters of PyTorch")
class TestTorch:
    def test_trace_is_the_same_with_and_without_gradients(self):
        import torch

        model, x = tiny(), keras.ops.convert_to_tensor(random_array(1, SIZE, SIZE, 3))
        graphs = []
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled):
                traced = torch.jit.trace(model, x, check_trace=False)
            graphs.append([node.kind() for node in traced.inlined_graph.nodes()])
        assert graphs[0] == graphs[1]
        # The names of in-place operations, such as `aten::add_`, end in one underscore.
        assert [kind for kind in graphs[0] if kind.endswith("_") and not kind.endswith("__")] == []
        larger_batch = keras.ops.convert_to_tensor(random_array(3, SIZE, SIZE, 3))
        assert_predicts(keras.ops.convert_to_numpy(traced(larger_batch)), model, larger_batch)

    def test_exported_program_takes_any_batch_size(self):
        import torch

        model, x = tiny(), keras.ops.convert_to_tensor(random_array(2, SIZE, SIZE, 3))
        dynamic = [({0: torch.export.Dim("batch", max=1024)},)]
        program = torch.export.export(model, (x,), dynamic_shapes=dynamic, strict=False)
        larger_batch = keras.ops.convert_to_tensor(random_array(5, SIZE, SIZE, 3))
        assert_predicts(keras.ops.convert_to_numpy(program.module()(larger_batch)), model, larger_batch)

    @pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_torch_exports_to_onnx(self, dynamo, tmp_path):
        import torch

        model, x = tiny(), keras.ops.convert_to_tensor(random_array(2, SIZE, SIZE, 3))
        dynamic = (
            {"dynamic_shapes": [({0: torch.export.Dim("batch", max=1024)},)]}
            if dynamo
            else {"input_names": ["image"], "dynamic_axes": {"image": {0: "batch"}}}
        )
        torch.onnx.export(model, (x,), str(tmp_path / "a.onnx"), dynamo=dynamo, verbose=False, **dynamic)
        larger_batch = random_array(3, SIZE, SIZE, 3)
        assert_predicts(run_onnx(tmp_path / "a.onnx", larger_batch), model, larger_batch)

    def test_trace_of_training_contains_dropout(self):
        import torch

        layer = MobileAttention(16, 2, 4, attention_dropout=0.5)
        layer.build((1, 8, 8, 16))
        layer.trainable = False  # Constants of a trace can't require gradients.
        x = keras.ops.convert_to_tensor(random_array(1, 8, 8, 16))
        traced = torch.jit.trace(lambda x: layer(x, training=True), x, check_trace=False)
        assert "aten::dropout" in {node.kind() for node in traced.inlined_graph.nodes()}

    def test_onnx_file_takes_any_image_size(self, tmp_path):
        model = tiny(input_shape=(None, None, 3))
        model(random_array(1, SIZE, SIZE, 3))
        model.export(str(tmp_path / "a.onnx"), format="onnx", verbose=False)
        for size in ((33, 46), (34, 45)):
            x = random_array(2, *size, 3)
            assert_predicts(run_onnx(tmp_path / "a.onnx", x), model, x)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tests an exporter of TensorFlow")
class TestTensorFlow:
    @pytest.mark.slow
    def test_tensorflow_saves_model(self, tmp_path):
        import tensorflow as tf

        model, x = tiny(), random_array(3, SIZE, SIZE, 3)
        signature = [tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32)]
        serve = tf.function(lambda x: model(x, training=False), input_signature=signature)
        tf.saved_model.save(model, str(tmp_path / "a"), signatures=serve)
        loaded = tf.saved_model.load(str(tmp_path / "a"))
        (outputs,) = loaded.signatures["serving_default"](tf.constant(x)).values()
        assert_predicts(outputs.numpy(), model, x)


@pytest.mark.skipif(BACKEND != "jax", reason="tests an exporter of JAX")
@pytest.mark.slow
def test_jax_exports_for_any_batch_size():
    import jax
    from jax import export

    model = tiny()
    (batch,) = export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, SIZE, SIZE, 3), "float32")
    program = export.export(jax.jit(lambda x: model(x, training=False)))(shape)
    x = random_array(3, SIZE, SIZE, 3)
    assert_predicts(np.asarray(export.deserialize(program.serialize()).call(x)), model, x)
