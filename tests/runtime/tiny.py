"""A tiny classifier, written by each format's own library, and its reference implementation in NumPy.

A 1×1 convolution with ReLU computes the feature map. Its mean, multiplied by a matrix, gives the logits, and softmax
turns them into probabilities.
"""

import numpy as np
import pytest

_RANDOM = np.random.default_rng(7)
CHANNELS, FILTERS, CLASSES, SIZE = 3, 4, 5, 8
KERNEL = _RANDOM.normal(size=(CHANNELS, FILTERS)).astype("float32")
MATRIX = _RANDOM.normal(size=(FILTERS, CLASSES)).astype("float32")
OUTPUTS = ("map", "probabilities")

# The libraries that write and run each format.
FORMATS = {
    "tflite": ("tensorflow", "ai_edge_litert"),
    "onnx": ("onnx", "onnxruntime"),
    "xml": ("openvino",),
    "pt2": ("torch",),
    "saved_model": ("tensorflow",),
}


def format_parameters():
    """Return the formats as parameters; SavedModel is slow, because a new process takes long to import TensorFlow."""
    return [pytest.param(kind, marks=pytest.mark.slow) if kind == "saved_model" else kind for kind in FORMATS]


def images(count=3, size=SIZE):
    return np.random.default_rng(3).normal(size=(count, size, size, CHANNELS)).astype("float32")


def expected(batch):
    """Return `{output name: values}` for a batch of images, computed with NumPy."""
    feature_map = np.maximum(batch @ KERNEL, 0)
    logits = feature_map.mean((1, 2)) @ MATRIX
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return {"map": feature_map, "logits": logits, "probabilities": values / values.sum(-1, keepdims=True)}


def write(kind, folder, **options):
    """Write a new file and return its path; skip the test if a library of the format isn't installed.

    Options: `batch`, the batch size, or None for any; `size`, the images' height and width, or None for any;
    `outputs`, a selection of `map`, `logits` and `probabilities`; and the options of the format's function below.
    """
    for library in FORMATS[kind]:
        pytest.importorskip(library)
    path = folder / (kind if kind == "saved_model" else f"model.{kind}")
    options = {"batch": None, "size": SIZE, "outputs": OUTPUTS} | options
    _WRITERS[kind](path, **options)
    return path


def _tensorflow_module(outputs, batch, size, unsupported=False):
    import tensorflow as tf

    module = tf.Module()
    module.kernel, module.matrix = tf.Variable(KERNEL[None, None]), tf.Variable(MATRIX)

    def call(image):
        tensors = {"map": tf.nn.relu(tf.nn.conv2d(image, module.kernel, 1, "SAME"))}
        mean = tf.reduce_mean(tensors["map"], (1, 2))
        if unsupported:  # XNNPACK doesn't support a cumulative sum; the differences of its elements restore the mean
            total = tf.cumsum(mean, 1)
            mean = total - tf.pad(total, [[0, 0], [1, 0]])[:, :-1]
        tensors["logits"] = tf.matmul(mean, module.matrix)
        tensors["probabilities"] = tf.nn.softmax(tensors["logits"])
        return {name: tensors[name] for name in outputs}

    signature = [tf.TensorSpec((batch, size, size, CHANNELS), tf.float32, name="image")]
    module.function = tf.function(call, input_signature=signature)
    return module


def _write_saved_model(path, outputs, batch, size):
    import tensorflow as tf

    module = _tensorflow_module(outputs, batch, size)
    tf.saved_model.save(module, path, signatures=module.function)


def _write_tflite(path, outputs, batch, size, integers=None, unsupported=False):
    """Write a LiteRT file; `integers="int8"` or `"uint8"` quantizes the weights, activations, inputs and outputs."""
    import tensorflow as tf

    module = _tensorflow_module(outputs, batch, size, unsupported)
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
    channels_first = layout == "NCHW"
    axes = [batch, CHANNELS, size, size] if channels_first else [batch, size, size, CHANNELS]
    kernel = KERNEL.T[..., None, None] if channels_first else KERNEL
    nodes = [
        helper.make_node("Conv" if channels_first else "MatMul", ["image", "kernel"], ["convolved"]),
        helper.make_node("Relu", ["convolved"], ["map"]),
        helper.make_node("ReduceMean", ["map"], ["mean"], axes=[2, 3] if channels_first else [1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    shapes = {"map": [batch, FILTERS, size, size] if channels_first else [batch, size, size, FILTERS]}
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
    """Write an OpenVINO model; `half` stores the weights in float16."""
    import openvino
    from openvino import opset13 as ops

    image = ops.parameter([batch or -1, CHANNELS, size or -1, size or -1], np.float32, name="image")
    kernel = ops.constant(KERNEL.T[..., None, None])
    convolved = ops.convolution(image, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    nodes = {"map": ops.relu(convolved)}
    mean = ops.reduce_mean(nodes["map"], ops.constant(np.array([2, 3])), False)
    nodes["logits"] = ops.matmul(mean, ops.constant(MATRIX), False, False)
    nodes["probabilities"] = ops.softmax(nodes["logits"], 1)
    for name, node in nodes.items():
        node.output(0).set_names({name})
    model = openvino.Model([ops.result(nodes[name]) for name in outputs], [image], "tiny")
    openvino.save_model(model, path, compress_to_fp16=half)


def _write_pt2(path, outputs, batch, size):
    import torch

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = torch.nn.Parameter(torch.from_numpy(KERNEL.T[..., None, None].copy()))
            self.matrix = torch.nn.Parameter(torch.from_numpy(MATRIX))

        def forward(self, image):
            tensors = {"map": torch.nn.functional.conv2d(image, self.kernel).relu()}
            tensors["logits"] = tensors["map"].mean((2, 3)) @ self.matrix
            tensors["probabilities"] = tensors["logits"].softmax(1)
            return {name: tensors[name] for name in outputs}

    dynamic_axes = {0: torch.export.Dim.DYNAMIC} if batch is None else {}
    dynamic_axes |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if size is None else {}
    example = torch.zeros((batch or 2, CHANNELS, size or 8, size or 10))
    program = torch.export.export(Tiny().eval(), (example,), dynamic_shapes={"image": dynamic_axes})
    torch.export.save(program, path)


_WRITERS = {
    "tflite": _write_tflite,
    "onnx": _write_onnx,
    "xml": _write_xml,
    "pt2": _write_pt2,
    "saved_model": _write_saved_model,
}
