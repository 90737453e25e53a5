"""Fewer bits for finished files, by each format's own tools."""

import json
from pathlib import Path

import numpy as np

FULL, REDUCED = 127, 63  # the largest whole number that a weight becomes
_ENDS = "predictions|probabilities"  # the layers that end a classifier by a softmax


def quantize_litert(source, path, quantization, images, float_blocks, reduce_range=False):
    """Write a LiteRT file with weights in float16 or int8, or, for `"int8"`, computed in integers but for its two ends.

    The ranges of activations are found once for a float file and kept beside it, so that another int8 file from the
    same source, such as one with more layers in float32, costs no second calibration.

    Args:
        source: The file in float32.
        path: The file to write.
        quantization: `"float16"`, `"dynamic"` or `"int8"`.
        images: An array to calibrate `"int8"` with, as the file takes them.
        float_blocks: Names of layers that stay in float.
        reduce_range: Whether kernels keep to 7 bits; LiteRT's kernels never need it.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe

    names = qtyping.TFLOperationName
    work = quantizer.Quantizer(str(source))
    if quantization == "float16":
        work.update_quantization_recipe(
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
        work.load_quantization_recipe(
            recipe.dynamic_wi8_afp32() if quantization == "dynamic" else recipe.static_wi8_ai8()
        )
    skipped = [(f"(^|/){name}(_\\d+)?/", names.ALL_SUPPORTED) for name in float_blocks]
    if quantization == "int8":
        skipped += [(".*", names.INPUT), (".*", names.OUTPUT), (_ENDS, names.SOFTMAX)]
    for pattern, operation in skipped:
        work.update_quantization_recipe(
            regex=pattern, operation_name=operation, algorithm_key=recipe.AlgorithmName.NO_QUANTIZE
        )
    ranges = None
    if quantization == "int8":
        data = {"serving_default": [{"image": image[None]} for image in images]}
        found = _kept_ranges(source, lambda: _litert_ranges(source, work.calibrate(data), images))
        ranges = {name: {"min": np.float32(low), "max": np.float32(high)} for name, (low, high) in found.items()}
    work.quantize(ranges).export_model(str(path))


def quantize_onnx(source, path, quantization, images, float_blocks, reduce_range=False):
    """Write an ONNX file with weights in float16 or 8 bits, or, for `"int8"`, with integers between Q and DQ nodes.

    The arguments are those of `quantize_litert`.
    """
    import onnx

    model = onnx.load(source)
    if quantization == "float16":
        _store_halves(model)
        onnx.save(model, path)
        return
    from onnxruntime import quantization as tools
    from onnxruntime.quantization.calibrate import TensorsData

    kept = [node.name for node in model.graph.node if node.name.partition("/")[0] in float_blocks]
    if quantization == "dynamic":
        # ONNX Runtime has integer convolutions with unsigned weights only.
        tools.quantize_dynamic(source, path, weight_type=tools.QuantType.QUInt8, nodes_to_exclude=kept)
        return
    ends = [node.name for node in model.graph.node if node.op_type == "Softmax" and "predictions" in node.name]
    found = _kept_ranges(source, lambda: _onnx_ranges(source, images))
    ranges = {name: (np.float32(low), np.float32(high)) for name, (low, high) in found.items()}
    quantizer = tools.QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=reduce_range,
        weight_qType=tools.QuantType.QInt8,
        activation_qType=tools.QuantType.QUInt8,
        tensors_range=TensorsData(tools.CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=kept + ends,
        op_types_to_quantize=_onnx_operations(),
        extra_options={},
    )
    quantizer.quantize_model()
    onnx.save(quantizer.model.model, path)


def quantize_openvino(source, path, quantization, images, float_blocks, reduce_range=False):
    """Write OpenVINO's representation with weights in float16, or, for `"int8"`, computed in integers where it pays.

    The arguments are those of `quantize_litert`; NNCF calibrates for every file anew.
    """
    import openvino

    model = openvino.Core().read_model(source)
    if quantization == "float16":
        openvino.save_model(model, path, compress_to_fp16=True)
        return
    import nncf

    nncf.set_log_level("ERROR")
    names = [node.get_friendly_name() for node in model.get_ordered_ops()]
    kept = [name for name in names if name.partition("/")[0] in float_blocks]
    overflow = nncf.OverflowFix.ENABLE if reduce_range else nncf.OverflowFix.DISABLE
    quantized = nncf.quantize(
        model,
        nncf.Dataset([image[None] for image in images]),
        subset_size=len(images),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=overflow,
            disable_bias_correction=True,  # `improve` has corrected the biases; NNCF's means would undo it
        ),
    )
    openvino.save_model(quantized, path, compress_to_fp16=False)


QUANTIZERS = {"litert": quantize_litert, "onnx": quantize_onnx, "openvino": quantize_openvino}


def _kept_ranges(source, calibrate):
    """Return the ranges of activations beside the float file `source`, `{tensor: (lowest, highest)}`.

    `calibrate()` finds them if there are none yet.
    """
    file = Path(f"{source}.ranges.json")
    if not file.exists():
        file.write_text(json.dumps(calibrate()), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def _litert_ranges(source, found, images):
    """Return the ranges that AI Edge Quantizer found, those of logits widened to all of their values.

    The tool's ranges are moving averages, which clip the largest logits of many images to the same value.
    """
    from ai_edge_litert.interpreter import Interpreter

    ranges = {
        name: (np.asarray(bounds["min"]).tolist(), np.asarray(bounds["max"]).tolist()) for name, bounds in found.items()
    }
    interpreter = Interpreter(str(source), experimental_preserve_all_tensors=True)
    (given,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(given["index"], (1, *images.shape[1:]))  # a file of larger batches too
    interpreter.allocate_tensors()
    shapes = [tuple(detail["shape"]) for detail in interpreter.get_output_details() if len(detail["shape"]) == 2]
    tensors = {
        detail["name"]: detail["index"]
        for detail in interpreter.get_tensor_details()
        if tuple(detail["shape"]) in shapes and detail["name"] in ranges
    }
    for image in images if tensors else ():
        interpreter.set_tensor(given["index"], image[None].astype("float32"))
        interpreter.invoke()
        for name, index in tensors.items():
            value, (low, high) = interpreter.get_tensor(index), ranges[name]
            ranges[name] = (np.minimum(low, value.min()).tolist(), np.maximum(high, value.max()).tolist())
    return ranges


def _onnx_ranges(source, images):
    """Return the means over the images of each activation's extremes, which lose less than the extremes over all.

    Logits keep their extremes: else the largest of many images would be clipped to the same value.
    """
    from onnxruntime import quantization as tools

    calibrator = tools.create_calibrator(
        Path(source),
        _onnx_operations(),
        augmented_model_path=f"{source}.augmented.onnx",
        extra_options={"moving_average": True},
    )
    calibrator.collect_data(_Reader(images))
    found = calibrator.compute_data()
    ranges = {name: tuple(float(np.squeeze(bound)) for bound in data.range_value) for name, data in found.items()}
    return ranges | _onnx_logit_ranges(source, images, ranges)


def _onnx_logit_ranges(source, images, names):
    """Return the extremes, over all images, of the tensors of `names` that have the shape of an output of rank 2."""
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
    while (given := reader.get_next()) is not None:
        for name, found in zip(extremes, session.run(list(extremes), given), strict=True):
            low, high = extremes[name]
            extremes[name] = (min(low, float(found.min())), max(high, float(found.max())))
    return extremes


def _onnx_shape(value):
    return tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)


def _onnx_operations():
    """Return the operations that ONNX Runtime has integer kernels for."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry})


class _Reader:
    """Images one by one, as ONNX Runtime's calibration asks for them."""

    def __init__(self, images):
        self.rest = iter(images)

    def get_next(self):
        image = next(self.rest, None)
        return None if image is None else {"image": np.ascontiguousarray(image[None])}


def _store_halves(model):
    """Store kernels as float16 and casts them back where they are used, which a runtime does once, when it loads."""
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
