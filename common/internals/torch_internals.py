"""What this library needs of PyTorch and PyTorch has no public API for."""

from typing import Any

import torch
from torch.utils import _pytree

# The operation that records a tensor's type in a traced program. PyTorch 2.1 to the latest; None where it is missing.
ASSERT_METADATA = getattr(getattr(torch.ops.aten, "_assert_tensor_metadata", None), "default", None)


def is_view(tensor: Any) -> bool:
    """Return whether `tensor` shares its memory with another that autograd knows.

    Stands in for a public name of the same check. PyTorch 1.0 to the latest; required.
    """
    return tensor._is_view()


def tree_leaves(tree):
    """Return the leaves of nested tuples, lists and dictionaries in the order of torch.export's programs.

    Stands in for a public `torch.utils.pytree`. PyTorch 2.1 to the latest; required for `.pt2` files.
    """
    return _pytree.tree_leaves(tree)


def tree_unflatten(leaves, specification):
    """Return `leaves` nested as the `call_spec` of an exported program says; see `tree_leaves`."""
    return _pytree.tree_unflatten(leaves, specification)


# Public by their documentation but not exported by `torch.jit`. PyTorch 1.0 to the latest; required.
_jit: Any = torch.jit
is_jit_tracing = _jit.is_tracing
TracerWarning = _jit.TracerWarning
