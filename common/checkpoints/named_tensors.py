"""The tensors of an opened checkpoint, the layout of their names, and the padding and epsilon of their model."""

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
    """The tensors of a checkpoint, by name.

    Attributes:
        tensors: `{name: NumPy array}` of the network.
        layout: The `Layout` of the names.
        source: Path of the checkpoint, for messages.
        checkpoint: The published `Checkpoint` that the tensors come from, or None.
        left: `{name: NumPy array}` of the tensors that no model of the layout has, such as those of a user's layers.
        adopted: Name of the user's layer that serves as the classifier in `tensors`, or None.
    """

    tensors: dict
    layout: Layout
    source: str
    checkpoint: Any = None
    left: dict = dataclasses.field(default_factory=dict)
    adopted: str | None = None

    @classmethod
    def open(cls, source, layout=None):
        """Read a checkpoint.

        Args:
            source: Path of a file, or a mapping of names to arrays; see `load_checkpoint`.
            layout: A name of `LAYOUTS`; None detects the layout from the tensors' names.

        Raises:
            ValueError: If the layout is unknown, or the source is neither a path nor a mapping.
            CheckpointError: If the source can't be read, or its layout can't be detected.
        """
        if layout is not None and layout not in LAYOUTS:
            raise unknown_name("layout", layout, LAYOUTS)
        if isinstance(source, Mapping):
            contents, name = source, "the mapping"
        elif isinstance(source, (str, os.PathLike)):
            contents, name = read(source), str(source)
        else:
            raise ArgumentError(
                f"A checkpoint of type {type(source).__name__} is not allowed: pass a path or a mapping of names to "
                "arrays."
            )
        known = [LAYOUTS[layout]] if layout else list(LAYOUTS.values())
        network = find_network(contents, name, lambda names: _layout_of(names, known) is not None)
        detected = LAYOUTS[layout] if layout else _layout_of(network.tensors, known)
        if detected is None:
            raise CheckpointError(
                f"{name} does not look like a MobileNet of any known layout ({', '.join(LAYOUTS)}): its first tensors "
                f"are {', '.join(list(network.tensors)[:3]) or 'none'}."
            )
        _warn_of_choice(name, network)
        tensors, left = network.tensors, network.left
        if detected.name == "keras":
            tensors, left = ({_numbered(key): value for key, value in part.items()} for part in (tensors, left))
        tensors, others = detected.split(detected.rename(tensors))
        state = cls(tensors, detected, name, left=left | others)
        return state if _may_pool_differently(source) else state._with_adopted_classifier()

    def _with_adopted_classifier(self):
        """Return a copy that uses the user's only layer as the classifier, if its shape fits the body; else `self`."""
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
        """Number of outputs of the classifier, or None if the checkpoint has no classifier."""
        for name, tensor in self.tensors.items():
            if self.layout.classifier.fullmatch(name):
                return int(tensor.shape[0])
        return None

    def for_classes(self, num_classes):
        """Return a copy without the background class if the classifier has `num_classes + 1` outputs; else `self`."""
        if not self.layout.background or self.num_classes != num_classes + 1:
            return self
        tensors = {
            name: tensor[1:] if name in ("classifier.weight", "classifier.bias") else tensor
            for name, tensor in self.tensors.items()
        }
        return dataclasses.replace(self, tensors=tensors)

    @functools.cached_property
    def recorded(self):
        """The `padding` and `norm_epsilon` that a file of this library records; empty for other files."""
        options = own_options(self.source)
        return {name: options[name] for name in ("padding", "norm_epsilon") if name in options}

    def conventions(self, architecture):
        """Return the `padding` and `norm_epsilon` of the checkpoint's model as a dict; empty if they are unknown."""
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
    """Return the first of `layouts` that recognizes the names, or None."""
    names = list(names)
    numbered = [_numbered(name) for name in names]
    return next(
        (layout for layout in layouts if layout.recognizes(numbered if layout.name == "keras" else names)), None
    )


def _warn_of_choice(source, network):
    if network.others:
        is_averaged = any(word in AVERAGED for word in network.path.split("."))
        loaded = f"{network.path} (averaged weights)" if is_averaged else network.path
        warn(f"{source} holds several networks: loaded {loaded}, not {', '.join(network.others)}.")


def _may_pool_differently(source):
    """Return whether the model in a file has layers that may replace the average pool before a classifier."""
    if isinstance(source, Mapping):
        return False
    return any(kind in ("Flatten", "GlobalMaxPooling2D", "MaxPooling2D") for kind, _ in layer_configs(source))


def _numbered(name):
    """Return a Keras variable name with the number of the variable in its layer, as in Keras's files.

    Both `conv1/kernel:0` and `conv1/conv1/kernel` become `conv1/0`.
    """
    *path, last = name.removesuffix(":0").split("/")
    if not path or last not in _KERAS_INDEX:
        return name
    if len(path) > 1 and path[-1] == path[-2]:
        path.pop()
    return f"{'/'.join(path)}/{_KERAS_INDEX[last]}"
