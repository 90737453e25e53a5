"""The tensors of a checkpoint in hand, whose naming they follow, and what that library's models expect."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

from mobilenet_common import conventions
from mobilenet_common.checkpoints.files import own_options, read
from mobilenet_common.checkpoints.keras_files import layer_configs
from mobilenet_common.checkpoints.layouts import LAYOUTS
from mobilenet_common.checkpoints.layouts.base import Layout
from mobilenet_common.checkpoints.networks import AVERAGED, find_network
from mobilenet_common.errors import ArgumentError, CheckpointError, unknown_name
from mobilenet_common.notices import warn

_KERAS_INDEX = {
    "kernel": 0,
    "depthwise_kernel": 0,
    "gamma": 0,
    "bias": 1,
    "beta": 1,
    "moving_mean": 2,
    "moving_variance": 3,
}


@dataclasses.dataclass(frozen=True)
class StateDict:
    """Tensors by name.

    Attributes:
        tensors: `{name: NumPy array}`.
        layout: The `Layout` that the names follow.
        source: For messages: the path.
        checkpoint: The published `Checkpoint` that they are, or None.
        left: What else the source holds and no model of that library has, such as a user's own layers behind it.
        adopted: The name of the user's own layer that is the classifier in `tensors`, or None.
    """

    tensors: dict
    layout: Layout
    source: str
    checkpoint: Any = None
    left: dict = dataclasses.field(default_factory=dict)
    adopted: str | None = None

    @classmethod
    def open(cls, source, layout=None):
        """Read `source`, a path or a mapping of names to arrays.

        Args:
            source: See `load_checkpoint`.
            layout: A name of `LAYOUTS`; None to recognize it by the tensors' names.

        Raises:
            ValueError: An unknown layout, or a source that is neither a path nor a mapping.
            CheckpointError: The source can't be read, or its layout isn't recognized.
        """
        if layout is not None and layout not in LAYOUTS:
            raise unknown_name("layout", layout, LAYOUTS)
        if isinstance(source, Mapping):
            contents, name = source, "the mapping"
        elif isinstance(source, (str, os.PathLike)):
            contents, name = read(source), str(source)
        else:
            raise ArgumentError(
                f"A checkpoint of type {type(source).__name__} is not allowed: give a path or a mapping of names to "
                "arrays."
            )
        known = [LAYOUTS[layout]] if layout else list(LAYOUTS.values())
        network = find_network(contents, name, lambda names: _layout_of(names, known) is not None)
        found = LAYOUTS[layout] if layout else _layout_of(network.tensors, known)
        if found is None:
            raise CheckpointError(
                f"{name} does not look like a MobileNet of any known layout ({', '.join(LAYOUTS)}): its first tensors "
                f"are {', '.join(list(network.tensors)[:3]) or 'none'}."
            )
        _notify_of_choice(name, network)
        tensors, left = network.tensors, network.left
        if found.name == "keras":
            tensors, left = ({_numbered(key): value for key, value in part.items()} for part in (tensors, left))
        tensors, others = found.split(found.spelled(tensors))
        opened = cls(tensors, found, name, left=left | others)
        return opened if _pools_otherwise(source) else opened._with_users_classifier()

    def _with_users_classifier(self):
        """Return this with the only layer it has beside the body as classifier, if it can be nothing else."""
        layers = {key.rpartition("/")[0] for key in self.left}
        name, features = self.layout.classifier_of(self.tensors) or (None, None)
        if name is None or len(layers) != 1 or self.num_classes is not None:
            return self
        layer = layers.pop()
        kernel, bias = self.left.get(f"{layer}/0"), self.left.get(f"{layer}/1")
        if len(self.left) != 2 or kernel is None or bias is None or kernel.shape != (features, *bias.shape):
            return self
        tensors = self.tensors | {f"{name}/0": kernel, f"{name}/1": bias}
        return dataclasses.replace(self, tensors=tensors, left={}, adopted=layer)

    @property
    def num_classes(self):
        """The classifier's outputs, or None if there is no classifier in it."""
        for name, tensor in self.tensors.items():
            if self.layout.classifier.fullmatch(name):
                return int(tensor.shape[0])
        return None

    def for_classes(self, num_classes):
        """Return this without the background class, if `num_classes` outputs have no place for it."""
        if not self.layout.background or self.num_classes != num_classes + 1:
            return self
        tensors = {
            name: tensor[1:] if name in ("classifier.weight", "classifier.bias") else tensor
            for name, tensor in self.tensors.items()
        }
        return dataclasses.replace(self, tensors=tensors)

    @functools.cached_property
    def recorded(self):
        """`padding` and `norm_epsilon` as a file of this library records them; else an empty dict."""
        own = own_options(self.source)
        return {name: own[name] for name in ("padding", "norm_epsilon") if name in own}

    def conventions(self, architecture):
        """Return `padding` and `norm_epsilon` of the models that such a checkpoint comes from, as far as names tell."""
        if self.checkpoint is not None:
            return self.checkpoint.convention.options
        layout = self.layout.name
        if layout in ("keras", "huggingface"):
            return conventions.BY_LAYOUT[layout][0].options
        if self.recorded or layout == "native":
            return dict(self.recorded)
        if layout == "timm":
            return conventions.of_timm(architecture.name).options
        if layout == "torchvision":
            return conventions.of_torchvision(is_v3=any(".block." in name for name in self.tensors)).options
        return conventions.BY_LAYOUT[layout][0].options


def _layout_of(names, layouts):
    """Return the first of `layouts` that has such names, or None."""
    names = list(names)
    numbered = [_numbered(name) for name in names]
    return next(
        (layout for layout in layouts if layout.recognizes(numbered if layout.name == "keras" else names)), None
    )


def _notify_of_choice(source, network):
    if network.others:
        averaged = any(word in AVERAGED for word in network.place.split("."))
        taken = f"{network.place} (averaged weights)" if averaged else network.place
        warn(f"{source} holds several networks: loaded {taken}, not {', '.join(network.others)}.")


def _pools_otherwise(source):
    """Return whether a file describes a model in which something else than the average may go into a classifier."""
    if isinstance(source, Mapping):
        return False
    return any(kind in ("Flatten", "GlobalMaxPooling2D", "MaxPooling2D") for kind, _ in layer_configs(source))


def _numbered(name):
    """Return `conv1/kernel:0` and `conv1/conv1/kernel` as `conv1/0`: Keras's files number a layer's variables."""
    *path, last = name.removesuffix(":0").split("/")
    if not path or last not in _KERAS_INDEX:
        return name
    if len(path) > 1 and path[-1] == path[-2]:
        path.pop()
    return f"{'/'.join(path)}/{_KERAS_INDEX[last]}"
