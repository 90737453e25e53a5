"""Finds the network in a checkpoint: under the names of wrappers, inside other models, or next to averaged copies."""

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

from mobilenet_common.checkpoints.files import as_array
from mobilenet_common.checkpoints.refusals import MOST_BYTES, too_large
from mobilenet_common.checkpoints.torch_files import NotRead
from mobilenet_common.errors import CheckpointError

# Names that trainers and wrappers give a network, as a key of the checkpoint or as a prefix of the tensors' names.
# Averaged weights come first, as in timm.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
_PLAIN = ("state_dict", "model", "model_state_dict", "module", "_orig_mod", "net")
_COUNTERS = ("n_averaged",)
_DEEPEST = 8


@dataclasses.dataclass(frozen=True)
class Network:
    """A network in a checkpoint.

    Attributes:
        tensors: `{name: NumPy array}` of the network, without the prefixes of wrappers.
        left: `{name: NumPy array}` of the tensors that belong to no network, with the names in the checkpoint.
        path: Path of the network in the checkpoint, such as `"state_dict_ema"`; empty if the network isn't wrapped.
        others: Paths of the other networks in the checkpoint, such as `"state_dict"`.
    """

    tensors: dict
    left: dict = dataclasses.field(default_factory=dict)
    path: str = ""
    others: tuple = ()


def find_network(contents, source, recognizes):
    """Return the `Network` in a checkpoint; averaged weights are preferred to raw weights.

    Args:
        contents: Mapping of names to tensors, nested mappings and other objects.
        source: Path of the checkpoint, for error messages.
        recognizes: Function that takes tensor names and returns whether they are those of a network.

    Raises:
        CheckpointError: If the checkpoint doesn't map names to tensors, or contains several networks of equal rank.
    """
    if isinstance(contents, NotRead):
        raise _not_a_state_dict(source, "it is an object of another kind")
    if not isinstance(contents, Mapping):
        raise _not_a_state_dict(source, f"it is a {type(contents).__name__}")
    candidates = _search(_with_string_keys(contents), recognizes, {})
    if not candidates:  # The caller reports that the names are unknown.
        tensors = _arrays(_unwrapped(contents), source)
        if not tensors and contents:
            raise _not_a_state_dict(source, "it contains only objects of other kinds")
        return Network(tensors)
    best = candidates[0]
    rivals = [network for network in candidates if network.rank == best.rank]
    if len(rivals) > 1:
        paths = ", ".join(rival.path for rival in rivals)
        raise CheckpointError(f"{source} holds {len(rivals)} networks ({paths}): save only the one you want.")
    tensors, left = _arrays(best.tensors, source), _arrays(best.left, source)
    return Network(tensors, left, best.path, tuple(network.path for network in candidates[1:]))


@dataclasses.dataclass
class _Candidate:
    tensors: dict
    left: dict
    path: str = ""
    rank: tuple = ()


def _search(contents, recognizes, seen, depth=0):
    """Return the networks in `contents`, preferred ones first."""
    if recognizes([name for name, value in contents.items() if not isinstance(value, Mapping)]):
        return [_Candidate(contents, {})]
    if depth == _DEEPEST:
        return []
    candidates, prefixes = [], []
    for rank, start, separator, inner in _branches(contents):
        if id(inner) in seen:  # A pickled object can contain itself.
            continue
        seen[id(inner)] = inner
        nested = _search(_with_string_keys(inner), recognizes, seen, depth + 1)
        for network in nested:
            network.path = f"{start}{separator if network.path else ''}{network.path}"
            network.rank = (rank, *network.rank)
        candidates += nested
        if nested and start not in contents:
            prefixes.append(start + separator)
    if prefixes:  # `contents` maps names to tensors. Tensors without one of the prefixes belong to no network.
        remaining = {
            name: value
            for name, value in contents.items()
            if not name.startswith(tuple(prefixes)) and name.rpartition(".")[2] not in _COUNTERS
        }
        for network in candidates:
            network.left |= remaining
    return sorted(candidates, key=lambda network: network.rank)


def _branches(contents):
    """Yield the `(rank, name, separator, mapping)` of each part that may contain a network."""
    for rank, word in enumerate((*AVERAGED, *_PLAIN)):
        inner = contents.get(word)
        if isinstance(inner, Mapping):
            yield rank, word, ".", inner
        elif inner := _with_prefix(contents, f"{word}."):
            yield rank, word, ".", inner
    models = {}
    for name, value in contents.items():
        model, separator, rest = name.partition("/")  # Names from Keras have slashes.
        if separator:
            models.setdefault(model, {})[rest] = value
    for model, inner in models.items():
        yield len(AVERAGED) + len(_PLAIN), model, "/", inner


def _with_prefix(contents, start):
    return {name.removeprefix(start): value for name, value in contents.items() if name.startswith(start)}


def _with_string_keys(contents):
    return {str(name): value for name, value in contents.items()}


def _unwrapped(contents):
    """Return the contents of the innermost wrapper, following the first wrapper at each level."""
    for _ in range(_DEEPEST):
        contents = _with_string_keys(contents)
        inner = next((inner for _, _, separator, inner in _branches(contents) if separator == "."), None)
        if not inner:
            break
        contents = inner
    return _with_string_keys(contents)


def _bytes(value: Any) -> int:
    """Return the size of a PyTorch tensor or an array in bytes; 0 for other objects."""
    return value.numel() * value.element_size() if hasattr(value, "element_size") else getattr(value, "nbytes", 0)


def _arrays(tensors: Mapping[str, Any], source):
    arrays = {}
    for name, value in tensors.items():
        if name.rpartition(".")[2] in _COUNTERS or _contains_not_read(value):
            continue
        if not (hasattr(value, "shape") or isinstance(value, (list, tuple, numbers.Number))):
            raise _not_a_state_dict(source, f"{name} is a {type(value).__name__}")
        if _bytes(value) > MOST_BYTES:  # A view can be larger than its storage in the file.
            raise too_large(source, name, tuple(getattr(value, "shape", ())))
        try:
            arrays[name] = as_array(value)
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:  # sparse, quantized, meta
            line = str(error).strip().splitlines()[0]
            raise CheckpointError(f"{source} holds {name}, which is not a dense array of numbers ({line}).") from None
    return arrays


def _contains_not_read(value):
    """Return whether a value is a `NotRead` placeholder for an object other than a tensor, or a list with one."""
    if isinstance(value, (list, tuple)):
        return any(map(_contains_not_read, value))
    return isinstance(value, NotRead)


def _not_a_state_dict(source, reason):
    return CheckpointError(f"{source} is not a state dict: it must map names to tensors, but {reason}.")
