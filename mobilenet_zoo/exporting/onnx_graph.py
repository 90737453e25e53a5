"""Clean up an ONNX graph that PyTorch exported."""

import collections

from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules.common import matmul_add_to_gemm_rule

_SCOPES = "pkg.torch.onnx.name_scopes"


def finish(graph_model):
    """Merge each dense layer into one operation, name nodes after their layers, and remove the metadata of tracing.

    Args:
        graph_model: `onnx_ir.Model`, which is changed in place.
    """
    rewrite(graph_model, pattern_rewrite_rules=[matmul_add_to_gemm_rule])
    counts = collections.Counter()
    layer = "model"
    for node in graph_model.graph:
        layer = _layer(node.metadata_props.get(_SCOPES, "")) or layer
        name = f"{layer}/{node.op_type}"
        node.name = f"{name}_{counts[name]}" if counts[name] else name
        counts[name] += 1
        node.metadata_props.clear()
    for value in [*graph_model.graph.inputs, *graph_model.graph.outputs, *graph_model.graph.initializers.values()]:
        value.metadata_props.clear()
    graph_model.metadata_props.clear()
    graph_model.graph.metadata_props.clear()


def _layer(scopes):
    """Return the layer name in a list of scopes that PyTorch stores as text, or `""` if there is none."""
    parts = scopes.partition("'layer.")[2]
    return parts.partition("'")[0].partition(".")[0]
