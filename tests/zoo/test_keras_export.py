"""Keras's own `model.export`, and the tracers of each framework, on the models here."""

import keras
import numpy as np
import pytest
from keras import ops

import mobilenet_zoo
from mobilenet_common.architecture import Architecture, Attention, Conv, Head, Inverted, Universal
from mobilenet_common.layers import MobileAttention
from mobilenet_v4 import create_mobilenetv4
from tests.common.layers import numbers, randomize

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
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, x)
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
# What Keras writes of any model from each backend, without packages that the extra "export" lacks.
OFFERED = {
    "torch": ("onnx", "openvino", "torch"),
    "tensorflow": ("openvino", "litert", "tf_saved_model"),
    "jax": ("tf_saved_model",),
}[BACKEND]
QUICK = ("onnx", "openvino") if BACKEND == "torch" else ()


def tiny(**options):
    return randomize(create_mobilenetv4(TINY, **{"num_classes": 5, "input_shape": (SIZE, SIZE, 3)} | options))


def agrees(found, model, x):
    """Assert that `found` is what `model` gives for `x`."""
    expected = ops.convert_to_numpy(model(x, training=False))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2e-4 * np.abs(expected).max()


def exported(model, format, folder, batch=None):
    """Export `model` by Keras, and assert that the file computes as the model does."""
    name, run = FORMATS[format]
    path = str(folder / name)
    size = model.input_shape[1:]
    options = {}
    if batch is not None:
        options["input_signature"] = [keras.InputSpec(shape=(batch, *size), dtype="float32", name="image")]
    elif format == "torch":
        import torch

        options["dynamic_shapes"] = {0: torch.export.Dim("batch", max=1024)}
    x = numbers(batch or 3, *size)
    model(x, training=False)  # Keras writes no ONNX file of a model that never ran
    model.export(path, format=format, verbose=False, **options)
    agrees(run(path, x), model, x)


@pytest.mark.parametrize("batch", [None, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("format", [pytest.param(f, marks=[] if f in QUICK else [pytest.mark.slow]) for f in OFFERED])
def test_keras_exports_a_model(format, batch, tmp_path):
    exported(tiny(classifier_activation=None), format, tmp_path, batch)


@pytest.mark.slow
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("format", OFFERED)
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
    # OpenVINO reads no TensorFlow graph with a depthwise convolution that pads by numbers, as PyTorch's padding needs.
    padding = "same" if (BACKEND, format) == ("tensorflow", "openvino") else None
    options = {"classifier_activation": None, "data_format": data_format, "padding": padding}
    model = mobilenet_zoo.create_model(name, num_classes=5, input_shape=shape, **options)
    exported(model, format, tmp_path)


@pytest.mark.skipif(BACKEND != "torch", reason="the tracers of PyTorch")
class TestTorch:
    def test_a_trace_is_the_same_with_and_without_gradients(self):
        import torch

        model, x = tiny(), keras.ops.convert_to_tensor(numbers(1, SIZE, SIZE, 3))
        graphs = []
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled):
                traced = torch.jit.trace(model, x, check_trace=False)
            graphs.append([node.kind() for node in traced.inlined_graph.nodes()])
        assert graphs[0] == graphs[1]
        # `aten::add_` and its like end in one underscore, which changes a tensor in its place.
        assert [kind for kind in graphs[0] if kind.endswith("_") and not kind.endswith("__")] == []
        more = keras.ops.convert_to_tensor(numbers(3, SIZE, SIZE, 3))
        agrees(keras.ops.convert_to_numpy(traced(more)), model, more)

    def test_a_program_for_any_batch(self):
        import torch

        model, x = tiny(), keras.ops.convert_to_tensor(numbers(2, SIZE, SIZE, 3))
        dynamic = [({0: torch.export.Dim("batch", max=1024)},)]
        program = torch.export.export(model, (x,), dynamic_shapes=dynamic, strict=False)
        more = keras.ops.convert_to_tensor(numbers(5, SIZE, SIZE, 3))
        agrees(keras.ops.convert_to_numpy(program.module()(more)), model, more)

    @pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_onnx_by_torch(self, dynamo, tmp_path):
        import torch

        model, x = tiny(), keras.ops.convert_to_tensor(numbers(2, SIZE, SIZE, 3))
        dynamic = (
            {"dynamic_shapes": [({0: torch.export.Dim("batch", max=1024)},)]}
            if dynamo
            else {"input_names": ["image"], "dynamic_axes": {"image": {0: "batch"}}}
        )
        torch.onnx.export(model, (x,), str(tmp_path / "a.onnx"), dynamo=dynamo, verbose=False, **dynamic)
        more = numbers(3, SIZE, SIZE, 3)
        agrees(run_onnx(tmp_path / "a.onnx", more), model, more)

    def test_dropout_stays_in_a_trace_of_training(self):
        import torch

        layer = MobileAttention(16, 2, 4, attention_dropout=0.5)
        layer.build((1, 8, 8, 16))
        layer.trainable = False  # a trace holds no constants with gradients
        x = keras.ops.convert_to_tensor(numbers(1, 8, 8, 16))
        traced = torch.jit.trace(lambda x: layer(x, training=True), x, check_trace=False)
        assert "aten::dropout" in {node.kind() for node in traced.inlined_graph.nodes()}

    def test_a_file_for_any_size(self, tmp_path):
        model = tiny(input_shape=(None, None, 3))
        model(numbers(1, SIZE, SIZE, 3))
        model.export(str(tmp_path / "a.onnx"), format="onnx", verbose=False)
        for size in ((33, 46), (34, 45)):
            x = numbers(2, *size, 3)
            agrees(run_onnx(tmp_path / "a.onnx", x), model, x)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the tracers of TensorFlow")
class TestTensorFlow:
    @pytest.mark.slow
    def test_saved_by_tensorflow(self, tmp_path):
        import tensorflow as tf

        model, x = tiny(), numbers(3, SIZE, SIZE, 3)
        signature = [tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32)]
        serve = tf.function(lambda x: model(x, training=False), input_signature=signature)
        tf.saved_model.save(model, str(tmp_path / "a"), signatures=serve)
        loaded = tf.saved_model.load(str(tmp_path / "a"))
        (found,) = loaded.signatures["serving_default"](tf.constant(x)).values()
        agrees(found.numpy(), model, x)


@pytest.mark.skipif(BACKEND != "jax", reason="the tracer of JAX")
@pytest.mark.slow
def test_a_program_of_jax_for_any_batch():
    import jax
    from jax import export

    model = tiny()
    (batch,) = export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, SIZE, SIZE, 3), "float32")
    program = export.export(jax.jit(lambda x: model(x, training=False)))(shape)
    x = numbers(3, SIZE, SIZE, 3)
    agrees(np.asarray(export.deserialize(program.serialize()).call(x)), model, x)
