"""Fewer bits for finished files, by each format's own tools."""

import numpy as np

# The largest whole number that a weight becomes; OpenVINO's tool corrects what rounding does by itself.
LEVELS = {"litert": 127, "onnx": 63}
_ENDS = "predictions|probabilities"  # the layers that end a classifier by a softmax


def quantize_litert(source, path, quantization, pictures, float_blocks):
    """A LiteRT file with weights in float16 or int8, or, for `"int8"`, computed in integers but for its two ends.

    Args:
        source: The file in float32.
        path: The file to write.
        quantization: `"float16"`, `"dynamic"` or `"int8"`.
        pictures: An array to calibrate `"int8"` with, as the file takes them.
        float_blocks: Names of layers that stay in float.
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
        ranges = work.calibrate({"serving_default": [{"image": picture[None]} for picture in pictures]})
    work.quantize(ranges).export_model(str(path))


def quantize_onnx(source, path, quantization, pictures, float_blocks):
    """An ONNX file with weights in float16 or 8 bits, or, for `"int8"`, with integers between Q and DQ nodes.

    The arguments are those of `quantize_litert`.
    """
    import onnx

    model = onnx.load(source)
    if quantization == "float16":
        _store_halves(model)
        onnx.save(model, path)
        return
    from onnxruntime import quantization as tools

    kept = [node.name for node in model.graph.node if node.name.partition("/")[0] in float_blocks]
    if quantization == "dynamic":
        # ONNX Runtime has integer convolutions with unsigned weights only.
        tools.quantize_dynamic(source, path, weight_type=tools.QuantType.QUInt8, nodes_to_exclude=kept)
        return
    ends = [node.name for node in model.graph.node if node.op_type == "Softmax" and "predictions" in node.name]
    tools.quantize_static(
        source,
        path,
        _Reader(pictures),
        quant_format=tools.QuantFormat.QDQ,
        per_channel=True,
        activation_type=tools.QuantType.QUInt8,
        weight_type=tools.QuantType.QInt8,
        reduce_range=True,  # processors without VNNI add products in 16 bits, which 8-bit weights overflow
        nodes_to_exclude=kept + ends,
    )


def quantize_openvino(source, path, quantization, pictures, float_blocks):
    """OpenVINO's representation with weights in float16, or, for `"int8"`, computed in integers where it pays.

    The arguments are those of `quantize_litert`.
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
    quantized = nncf.quantize(
        model,
        nncf.Dataset([picture[None] for picture in pictures]),
        subset_size=len(pictures),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE  # as ONNX's reduced range
        ),
    )
    openvino.save_model(quantized, path, compress_to_fp16=False)


QUANTIZERS = {"litert": quantize_litert, "onnx": quantize_onnx, "openvino": quantize_openvino}


class _Reader:
    """Pictures one by one, as ONNX Runtime's calibration asks for them."""

    def __init__(self, pictures):
        self.rest = iter(pictures)

    def get_next(self):
        picture = next(self.rest, None)
        return None if picture is None else {"image": np.ascontiguousarray(picture[None])}


def _store_halves(model):
    """Stores kernels as float16 and casts them back where they are used, which a runtime does once, when it loads."""
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
