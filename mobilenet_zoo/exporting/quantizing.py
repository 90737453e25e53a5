"""Quantize exported float32 files with the tools of each format."""

import json
from pathlib import Path

import numpy as np

FULL, REDUCED = 127, 63  # largest integer that weights are rounded to, with 8 and with 7 bits
_SOFTMAX_LAYERS = "predictions|probabilities"  # names of the layers that compute a classifier's softmax


def quantize_litert(source, path, quantization, images, float_blocks, reduce_range=False):
    """Write a quantized LiteRT file.

    With `"int8"`, the file computes in integers; its input, its outputs and a final softmax stay in float32. The ranges
    of activations are computed once and stored next to the float32 file, so that writing another int8 file from the
    same source, such as one with more layers in float32, needs no second calibration.

    Args:
        source: Path of the float32 file.
        path: Path of the file to write.
        quantization: `"float16"` (weights in float16), `"dynamic"` (weights in int8) or `"int8"`.
        images: Array of calibration images in the value range that the file takes; used for `"int8"` only.
        float_blocks: Names of the layers that stay in float32.
        reduce_range: Ignored, because LiteRT's kernels never need 7-bit weights.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe

    names = qtyping.TFLOperationName
    litert_quantizer = quantizer.Quantizer(str(source))
    if quantization == "float16":
        litert_quantizer.update_quantization_recipe(
            regex=".*",
            operation_name=names.ALL_SUPPORTED,
            algorithm_key=recipe.AlgorithmName.FLOAT_CASTING,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
        )
    else:
        litert_quantizer.load_quantization_recipe(
            recipe.dynamic_wi8_afp32() if quantization == "dynamic" else recipe.static_wi8_ai8()
        )
    skipped = [(f"(^|/){name}(_\\d+)?/", names.ALL_SUPPORTED) for name in float_blocks]
    if quantization == "int8":
        skipped += [(".*", names.INPUT), (".*", names.OUTPUT), (_SOFTMAX_LAYERS, names.SOFTMAX)]
    for pattern, operation in skipped:
        litert_quantizer.update_quantization_recipe(
            regex=pattern, operation_name=operation, algorithm_key=recipe.AlgorithmName.NO_QUANTIZE
        )
    ranges = None
    if quantization == "int8":
        data = {"serving_default": [{"image": image[None]} for image in images]}
        bounds = _cached_ranges(source, lambda: _litert_ranges(source, litert_quantizer.calibrate(data), images))
        ranges = {name: {"min": np.float32(low), "max": np.float32(high)} for name, (low, high) in bounds.items()}
    litert_quantizer.quantize(ranges).export_model(str(path))


def quantize_onnx(source, path, quantization, images, float_blocks, reduce_range=False):
    """Write a quantized ONNX file.

    `"float16"` stores weights in float16, and `"dynamic"` in 8 bits. `"int8"` inserts pairs of QuantizeLinear and
    DequantizeLinear nodes.

    Args:
        source: Path of the float32 file.
        path: Path of the file to write.
        quantization: `"float16"`, `"dynamic"` or `"int8"`.
        images: Array of calibration images in the value range that the file takes; used for `"int8"` only.
        float_blocks: Names of the layers that stay in float32.
        reduce_range: Whether kernels use only 7 bits.
    """
    import onnx

    model = onnx.load(source)
    if quantization == "float16":
        _store_as_float16(model)
        onnx.save(model, path)
        return
    from onnxruntime import quantization as tools
    from onnxruntime.quantization.calibrate import TensorsData

    excluded = [node.name for node in model.graph.node if node.name.partition("/")[0] in float_blocks]
    if quantization == "dynamic":
        # ONNX Runtime supports dynamic integer convolutions only with unsigned weights.
        tools.quantize_dynamic(source, path, weight_type=tools.QuantType.QUInt8, nodes_to_exclude=excluded)
        return
    softmax = [node.name for node in model.graph.node if node.op_type == "Softmax" and "predictions" in node.name]
    bounds = _cached_ranges(source, lambda: _onnx_ranges(source, images))
    ranges = {name: (np.float32(low), np.float32(high)) for name, (low, high) in bounds.items()}
    quantizer = tools.QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=reduce_range,
        weight_qType=tools.QuantType.QInt8,
        activation_qType=tools.QuantType.QUInt8,
        tensors_range=TensorsData(tools.CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=excluded + softmax,
        op_types_to_quantize=_onnx_operations(),
        extra_options={},
    )
    quantizer.quantize_model()
    onnx.save(quantizer.model.model, path)


def quantize_openvino(source, path, quantization, images, float_blocks, reduce_range=False):
    """Write a quantized OpenVINO file.

    `"float16"` stores weights in float16. With `"int8"`, NNCF chooses the operations that are computed in integers, and
    repeats the calibration for every file.

    Args:
        source: Path of the float32 file.
        path: Path of the file to write.
        quantization: `"float16"` or `"int8"`.
        images: Array of calibration images in the value range that the file takes; used for `"int8"` only.
        float_blocks: Names of the layers that stay in float32.
        reduce_range: Whether kernels use only 7 bits.
    """
    import openvino

    model = openvino.Core().read_model(source)
    if quantization == "float16":
        openvino.save_model(model, path, compress_to_fp16=True)
        return
    import nncf

    nncf.set_log_level("ERROR")
    names = [node.get_friendly_name() for node in model.get_ordered_ops()]
    excluded = [name for name in names if name.partition("/")[0] in float_blocks]
    overflow = nncf.OverflowFix.ENABLE if reduce_range else nncf.OverflowFix.DISABLE
    quantized = nncf.quantize(
        model,
        nncf.Dataset([image[None] for image in images]),
        subset_size=len(images),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=excluded, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=overflow,
            disable_bias_correction=True,  # `improve` has already corrected the biases.
        ),
    )
    openvino.save_model(quantized, path, compress_to_fp16=False)


QUANTIZERS = {"litert": quantize_litert, "onnx": quantize_onnx, "openvino": quantize_openvino}


def _cached_ranges(source, calibrate):
    """Return the activation ranges `{tensor name: (lowest, highest)}` that are stored next to the float32 file.

    If none are stored yet, call `calibrate()` to compute them, and store them.
    """
    file = Path(f"{source}.ranges.json")
    if not file.exists():
        file.write_text(json.dumps(calibrate()), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def _litert_ranges(source, calibrated, images):
    """Return the ranges that AI Edge Quantizer computed, with the ranges of logits extended to all of their values.

    The tool computes moving averages. For logits, such ranges would clip the largest logit of many images to the same
    value.
    """
    from ai_edge_litert.interpreter import Interpreter

    ranges = {
        name: (np.asarray(bounds["min"]).tolist(), np.asarray(bounds["max"]).tolist())
        for name, bounds in calibrated.items()
    }
    interpreter = Interpreter(str(source), experimental_preserve_all_tensors=True)
    (input_details,) = interpreter.get_input_details()
    # The file can have a larger batch size.
    interpreter.resize_tensor_input(input_details["index"], (1, *images.shape[1:]))
    interpreter.allocate_tensors()
    shapes = [tuple(detail["shape"]) for detail in interpreter.get_output_details() if len(detail["shape"]) == 2]
    tensors = {
        detail["name"]: detail["index"]
        for detail in interpreter.get_tensor_details()
        if tuple(detail["shape"]) in shapes and detail["name"] in ranges
    }
    for image in images if tensors else ():
        interpreter.set_tensor(input_details["index"], image[None].astype("float32"))
        interpreter.invoke()
        for name, index in tensors.items():
            value, (low, high) = interpreter.get_tensor(index), ranges[name]
            ranges[name] = (np.minimum(low, value.min()).tolist(), np.maximum(high, value.max()).tolist())
    return ranges


def _onnx_ranges(source, images):
    """Return the extremes of each activation, averaged over the images.

    Averages lose less accuracy than the extremes over all images. Logits are the exception: averages would clip the
    largest logit of many images to the same value, so their ranges are the extremes over all images.
    """
    from onnxruntime import quantization as tools

    calibrator = tools.create_calibrator(
        Path(source),
        _onnx_operations(),
        augmented_model_path=f"{source}.augmented.onnx",
        extra_options={"moving_average": True},
    )
    calibrator.collect_data(_Reader(images))
    calibrated = calibrator.compute_data()
    ranges = {name: tuple(float(np.squeeze(bound)) for bound in data.range_value) for name, data in calibrated.items()}
    return ranges | _onnx_logit_ranges(source, images, ranges)


def _onnx_logit_ranges(source, images, names):
    """Return the extremes, over all images, of those tensors in `names` that have the shape of a 2-D output."""
    import onnx
    import onnxruntime

    model = onnx.shape_inference.infer_shapes(onnx.load(source))
    outputs = list(model.graph.output)
    shapes = [_onnx_shape(value) for value in outputs if len(_onnx_shape(value)) == 2]
    values = {value.name: value for value in (*model.graph.value_info, *outputs)}
    chosen = [value for name, value in values.items() if name in names and _onnx_shape(value) in shapes]
    if not chosen:
        return {}
    model.graph.output.extend(value for value in chosen if value not in outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    reader, extremes = _Reader(images), {value.name: (0.0, 0.0) for value in chosen}
    while (inputs := reader.get_next()) is not None:
        for name, value in zip(extremes, session.run(list(extremes), inputs), strict=True):
            low, high = extremes[name]
            extremes[name] = (min(low, float(value.min())), max(high, float(value.max())))
    return extremes


def _onnx_shape(value):
    return tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)


def _onnx_operations():
    """Return the types of the operations for which ONNX Runtime has integer kernels."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry})


class _Reader:
    """Data reader for ONNX Runtime's calibration that returns the images one by one."""

    def __init__(self, images):
        self.images = iter(images)

    def get_next(self):
        image = next(self.images, None)
        return None if image is None else {"image": np.ascontiguousarray(image[None])}


def _store_as_float16(model):
    """Store kernels as float16, and insert casts back to float32. Runtimes compute the casts once, on loading."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name, half = tensor.name, f"{tensor.name}_half"
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float16"), half))
        casts.append(helper.make_node("Cast", [half], [name], f"{name}_cast", to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
