"""Remove leftovers of tracing a Keras model from a torch.export program."""

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
    """Remove assertions, redundant casts and stack traces, and apply transposes and reshapes of weights in advance.

    Args:
        program: `torch.export.ExportedProgram`, which is changed in place.

    Returns:
        The same program.
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
            _apply_view(program, stored[source.name], source, node)
            _replace(graph, node, source)
    for node in graph.nodes:
        node.meta.pop("stack_trace", None)  # It contains file paths of the machine that traced the program.
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


def _apply_view(program, key, source, view):
    """Replace the stored tensor `key` by the result of the node `view`, such as its transpose."""
    tensors = program.state_dict if key in program.state_dict else program.constants
    old = tensors[key]
    new = view.target(old.detach(), *view.args[1:], **view.kwargs).contiguous()
    tensors[key] = torch.nn.Parameter(new, requires_grad=False) if isinstance(old, torch.nn.Parameter) else new
    source.meta["val"] = view.meta["val"].contiguous()
