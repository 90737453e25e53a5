"""A tiny classifier written by each format's own library, and the same in NumPy.

A 1×1 convolution with ReLU gives the feature map; its mean and a matrix give the logits, softmax the probabilities.
"""

import numpy as np
import pytest

_RANDOM = np.random.default_rng(7)
CHANNELS, FILTERS, CLASSES, SIZE = 3, 4, 5, 8
KERNEL = _RANDOM.normal(size=(CHANNELS, FILTERS)).astype("float32")
MATRIX = _RANDOM.normal(size=(FILTERS, CLASSES)).astype("float32")
OUTPUTS = ("map", "probabilities")

# The libraries that write and run a format.
FORMATS = {
    "tflite": ("tensorflow", "ai_edge_litert"),
    "onnx": ("onnx", "onnxruntime"),
    "xml": ("openvino",),
    "pt2": ("torch",),
    "saved_model": ("tensorflow",),
}


def with_slow_ones():
    """The formats as parameters; TensorFlow, which reads a SavedModel, takes long to start in a process of its own."""
    return [pytest.param(kind, marks=pytest.mark.slow) if kind == "saved_model" else kind for kind in FORMATS]


def images(count=3, size=SIZE):
    return np.random.default_rng(3).normal(size=(count, size, size, CHANNELS)).astype("float32")


def expected(given):
    """`{name: answers}` by NumPy."""
    found = np.maximum(given @ KERNEL, 0)
    logits = found.mean((1, 2)) @ MATRIX
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return {"map": found, "logits": logits, "probabilities": values / values.sum(-1, keepdims=True)}


def write(kind, folder, **options):
    """The path of a new file; skips the test where its libraries are missing.

    Options: `batch`, images at once or None; `size`, their height and width or None; `outputs`, some of `map`,
    `logits` and `probabilities`; and those of the format's own function below.
    """
    for library in FORMATS[kind]:
        pytest.importorskip(library)
    path = folder / (kind if kind == "saved_model" else f"model.{kind}")
    options = {"batch": None, "size": SIZE, "outputs": OUTPUTS} | options
    _WRITERS[kind](path, **options)
    return path


def _function(outputs, batch, size, unsupported=False):
    import tensorflow as tf

    module = tf.Module()
    module.kernel, module.matrix = tf.Variable(KERNEL[None, None]), tf.Variable(MATRIX)

    def call(image):
        found = {"map": tf.nn.relu(tf.nn.conv2d(image, module.kernel, 1, "SAME"))}
        mean = tf.reduce_mean(found["map"], (1, 2))
        if unsupported:  # XNNPACK leaves a cumulative sum to the interpreter; minus the one before it is the same again
            total = tf.cumsum(mean, 1)
            mean = total - tf.pad(total, [[0, 0], [1, 0]])[:, :-1]
        found["logits"] = tf.matmul(mean, module.matrix)
        found["probabilities"] = tf.nn.softmax(found["logits"])
        return {name: found[name] for name in outputs}

    signature = [tf.TensorSpec((batch, size, size, CHANNELS), tf.float32, name="image")]
    module.function = tf.function(call, input_signature=signature)
    return module


def _write_saved_model(path, outputs, batch, size):
    import tensorflow as tf

    module = _function(outputs, batch, size)
    tf.saved_model.save(module, path, signatures=module.function)


def _write_tflite(path, outputs, batch, size, integers=None, unsupported=False):
    """With `integers="int8"` or `"uint8"` the file computes in 8 bits, and takes and gives such."""
    import tensorflow as tf

    module = _function(outputs, batch, size, unsupported)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.function.get_concrete_function()], module)
    if integers:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images(64))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = getattr(tf, integers)
    path.write_bytes(converter.convert())


def _write_onnx(path, outputs, batch, size, layout="NCHW"):
    from onnx import TensorProto, checker, helper, numpy_helper, save

    size, batch = size or "size", batch or "batch"
    first = layout == "NCHW"
    axes = [batch, CHANNELS, size, size] if first else [batch, size, size, CHANNELS]
    kernel = KERNEL.T[..., None, None] if first else KERNEL
    nodes = [
        helper.make_node("Conv" if first else "MatMul", ["image", "kernel"], ["convolved"]),
        helper.make_node("Relu", ["convolved"], ["map"]),
        helper.make_node("ReduceMean", ["map"], ["mean"], axes=[2, 3] if first else [1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    shapes = {"map": [batch, FILTERS, size, size] if first else [batch, size, size, FILTERS]}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, axes)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes.get(name, [batch, CLASSES]))
            for name in outputs
        ],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(MATRIX, "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    save(model, path)


def _write_xml(path, outputs, batch, size, half=False):
    """With `half` the weights are stored in 16 bits."""
    import openvino
    from openvino import opset13 as ops

    image = ops.parameter([batch or -1, CHANNELS, size or -1, size or -1], np.float32, name="image")
    kernel = ops.constant(KERNEL.T[..., None, None])
    convolved = ops.convolution(image, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    found = {"map": ops.relu(convolved)}
    mean = ops.reduce_mean(found["map"], ops.constant(np.array([2, 3])), False)
    found["logits"] = ops.matmul(mean, ops.constant(MATRIX), False, False)
    found["probabilities"] = ops.softmax(found["logits"], 1)
    for name, node in found.items():
        node.output(0).set_names({name})
    model = openvino.Model([ops.result(found[name]) for name in outputs], [image], "tiny")
    openvino.save_model(model, path, compress_to_fp16=half)


def _write_pt2(path, outputs, batch, size):
    import torch

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = torch.nn.Parameter(torch.from_numpy(KERNEL.T[..., None, None].copy()))
            self.matrix = torch.nn.Parameter(torch.from_numpy(MATRIX))

        def forward(self, image):
            found = {"map": torch.nn.functional.conv2d(image, self.kernel).relu()}
            found["logits"] = found["map"].mean((2, 3)) @ self.matrix
            found["probabilities"] = found["logits"].softmax(1)
            return {name: found[name] for name in outputs}

    free = {0: torch.export.Dim.DYNAMIC} if batch is None else {}
    free |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if size is None else {}
    example = torch.zeros((batch or 2, CHANNELS, size or 8, size or 10))
    program = torch.export.export(Tiny().eval(), (example,), dynamic_shapes={"image": free})
    torch.export.save(program, path)


_WRITERS = {
    "tflite": _write_tflite,
    "onnx": _write_onnx,
    "xml": _write_xml,
    "pt2": _write_pt2,
    "saved_model": _write_saved_model,
}
