"""Finds the network in what a checkpoint holds: below wrappers' names, inside other models, beside averaged copies."""

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

from mobilenet_common.checkpoints.files import as_array
from mobilenet_common.checkpoints.refusals import MOST_BYTES, too_large
from mobilenet_common.checkpoints.torch_files import NotRead
from mobilenet_common.errors import CheckpointError

# What trainers and wrappers call a network, as a key of the checkpoint or as the start of its tensors' names. Averaged
# weights come first, as in timm.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
_PLAIN = ("state_dict", "model", "model_state_dict", "module", "_orig_mod", "net")
_COUNTERS = ("n_averaged",)
_DEEPEST = 8


@dataclasses.dataclass(frozen=True)
class Network:
    """A network in a checkpoint.

    Attributes:
        tensors: `{name: NumPy array}`, by the names that its library gives.
        left: The same of what is beside it and belongs to no network, by the checkpoint's own names.
        place: Where it is, such as `"state_dict_ema"`; empty where nothing is around it.
        others: Where other networks are, such as `"state_dict"`.
    """

    tensors: dict
    left: dict = dataclasses.field(default_factory=dict)
    place: str = ""
    others: tuple = ()


def find_network(contents, source, recognizes):
    """Return the `Network` in a checkpoint, averaged weights before others.

    Args:
        contents: A mapping of names to tensors and other things, among them further such mappings.
        source: For messages: the path.
        recognizes: Function of names that tells whether they are a network's.

    Raises:
        CheckpointError: It holds something else than tensors, or several networks of which none goes first.
    """
    if isinstance(contents, NotRead):
        raise _no_state_dict(source, "it is an object of another kind")
    if not isinstance(contents, Mapping):
        raise _no_state_dict(source, f"it is a {type(contents).__name__}")
    found = _search(_keyed(contents), recognizes, {})
    if not found:  # the caller says what its names are
        tensors = _arrays(_unwrapped(contents), source)
        if not tensors and contents:
            raise _no_state_dict(source, "it has objects of other kinds in place of them")
        return Network(tensors)
    best = found[0]
    rivals = [network for network in found if network.rank == best.rank]
    if len(rivals) > 1:
        places = ", ".join(rival.place for rival in rivals)
        raise CheckpointError(f"{source} holds {len(rivals)} networks ({places}): save only the one you want.")
    tensors, left = _arrays(best.tensors, source), _arrays(best.left, source)
    return Network(tensors, left, best.place, tuple(network.place for network in found[1:]))


@dataclasses.dataclass
class _Found:
    tensors: dict
    left: dict
    place: str = ""
    rank: tuple = ()


def _search(contents, recognizes, seen, depth=0):
    """Return the networks in `contents`, those that go first at the start."""
    if recognizes([name for name, value in contents.items() if not isinstance(value, Mapping)]):
        return [_Found(contents, {})]
    if depth == _DEEPEST:
        return []
    found, started = [], []
    for rank, start, separator, inside in _branches(contents):
        if id(inside) in seen:  # a pickle may hold itself
            continue
        seen[id(inside)] = inside
        below = _search(_keyed(inside), recognizes, seen, depth + 1)
        for network in below:
            network.place = f"{start}{separator if network.place else ''}{network.place}"
            network.rank = (rank, *network.rank)
        found += below
        if below and start not in contents:
            started.append(start + separator)
    if started:  # here are tensors, and all of them below such names belong to networks
        beside = {
            name: value
            for name, value in contents.items()
            if not name.startswith(tuple(started)) and name.rpartition(".")[2] not in _COUNTERS
        }
        for network in found:
            network.left |= beside
    return sorted(found, key=lambda network: network.rank)


def _branches(contents):
    """Yield `(rank, name, separator, mapping)` of what may hold a network."""
    for rank, word in enumerate((*AVERAGED, *_PLAIN)):
        inside = contents.get(word)
        if isinstance(inside, Mapping):
            yield rank, word, ".", inside
        elif inside := _below(contents, f"{word}."):
            yield rank, word, ".", inside
    models = {}
    for name, value in contents.items():
        model, separator, rest = name.partition("/")  # Keras's
        if separator:
            models.setdefault(model, {})[rest] = value
    for model, inside in models.items():
        yield len(AVERAGED) + len(_PLAIN), model, "/", inside


def _below(contents, start):
    return {name.removeprefix(start): value for name, value in contents.items() if name.startswith(start)}


def _keyed(contents):
    return {str(name): value for name, value in contents.items()}


def _unwrapped(contents):
    """Return what is in the first wrapper, as deep as there are any."""
    for _ in range(_DEEPEST):
        contents = _keyed(contents)
        inside = next((inside for _, _, separator, inside in _branches(contents) if separator == "."), None)
        if not inside:
            break
        contents = inside
    return _keyed(contents)


def _bytes(value: Any) -> int:
    """Return the size of a tensor of PyTorch or an array; 0 of what has none."""
    return value.numel() * value.element_size() if hasattr(value, "element_size") else getattr(value, "nbytes", 0)


def _arrays(tensors: Mapping[str, Any], source):
    arrays = {}
    for name, value in tensors.items():
        if name.rpartition(".")[2] in _COUNTERS or _has_not_read(value):
            continue
        if not (hasattr(value, "shape") or isinstance(value, (list, tuple, numbers.Number))):
            raise _no_state_dict(source, f"{name} is a {type(value).__name__}")
        if _bytes(value) > MOST_BYTES:  # a view may claim more than the file holds
            raise too_large(source, name, tuple(getattr(value, "shape", ())))
        try:
            arrays[name] = as_array(value)
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:  # sparse, quantized, without data
            line = str(error).strip().splitlines()[0]
            raise CheckpointError(f"{source} holds {name}, which is not a plain array of numbers ({line}).") from None
    return arrays


def _has_not_read(value):
    """Return whether a value is what PyTorch files hold beside tensors, such as a NumPy score, or a list of such."""
    if isinstance(value, (list, tuple)):
        return any(map(_has_not_read, value))
    return isinstance(value, NotRead)


def _no_state_dict(source, why):
    return CheckpointError(f"{source} is not a state dict: it must map names to tensors, but {why}.")
