"""Parts of PyTorch that this library needs and that have no public API."""

from typing import Any

import torch
from torch.utils import _pytree

# The operator with which a `torch.export` program asserts a tensor's dtype and device. Missing public API: a name for
# it. PyTorch 2.1 to the latest; None in versions that lack it.
ASSERT_METADATA = getattr(getattr(torch.ops.aten, "_assert_tensor_metadata", None), "default", None)


def is_view(tensor: Any) -> bool:
    """Return whether autograd records `tensor` as a view of another tensor.

    Missing public API: a test for views. PyTorch 1.0 to the latest; required.
    """
    return tensor._is_view()


def tree_leaves(tree):
    """Return the leaves of nested tuples, lists and dicts, in the order that `torch.export` uses.

    Missing public API: a public equivalent of `torch.utils._pytree`. PyTorch 2.1 to the latest; required for `.pt2`
    files.
    """
    return _pytree.tree_leaves(tree)


def tree_unflatten(leaves, specification):
    """Return `leaves` in the nested structure that `specification` describes; the inverse of `tree_leaves`.

    Args:
        leaves: List of the leaves.
        specification: A `TreeSpec`, such as `call_spec.out_spec` of an exported program.
    """
    return _pytree.tree_unflatten(leaves, specification)


# PyTorch documents these names, but `torch.jit.__all__` lacks them, so type checkers reject them. PyTorch 1.0 to the
# latest; required.
_jit: Any = torch.jit
is_jit_tracing = _jit.is_tracing
TracerWarning = _jit.TracerWarning
