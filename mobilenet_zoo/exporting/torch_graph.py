"""A program of torch.export without what tracing a Keras model leaves in it."""

import torch

from mobilenet_common.internals.torch_internals import ASSERT_METADATA

aten = torch.ops.aten

_CASTS = {
    aten.alias.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
    aten.to.device,
    aten.to.dtype,
    aten.to.dtype_layout,
}
_VIEWS = {aten.permute.default, aten.t.default, aten.transpose.int, aten.view.default, aten.reshape.default}


def simplify(program):
    """Take out assertions and casts to the type that a tensor has, and turn weights once and for all.

    What says where the program was traced goes too.

    Args:
        program: A `torch.export.ExportedProgram`, which is changed.

    Returns:
        The program.
    """
    graph = program.graph
    stored = {
        spec.arg.name: spec.target
        for spec in program.graph_signature.input_specs
        if spec.kind.name in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR")
    }
    for node in list(graph.nodes):
        if node.target is ASSERT_METADATA:
            graph.erase_node(node)
    for node in list(graph.nodes):
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], torch.fx.Node):
            continue
        source = node.args[0]
        if node.target in _CASTS and _is_same(source, node):
            _replace(graph, node, source)
        elif node.target in _VIEWS and source.name in stored and len(source.users) == 1:
            _turn(program, stored[source.name], source, node)
            _replace(graph, node, source)
    for node in graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of the machine that traced
    graph.eliminate_dead_code()
    graph.lint()
    program.graph_module.recompile()
    return program


def _is_same(source, node):
    before, after = source.meta["val"], node.meta["val"]
    return before.dtype == after.dtype and before.device == after.device


def _replace(graph, node, source):
    node.replace_all_uses_with(source)
    graph.erase_node(node)


def _turn(program, key, source, view):
    """Store what `view` makes of the tensor that is stored as `key`."""
    tensors = program.state_dict if key in program.state_dict else program.constants
    old = tensors[key]
    turned = view.target(old.detach(), *view.args[1:], **view.kwargs).contiguous()
    tensors[key] = torch.nn.Parameter(turned, requires_grad=False) if isinstance(old, torch.nn.Parameter) else turned
    source.meta["val"] = view.meta["val"].contiguous()
