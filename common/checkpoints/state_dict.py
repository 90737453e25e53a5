"""The tensors of a checkpoint in hand, whose naming they follow, and what that library's models expect."""

import dataclasses
import os
from collections.abc import Mapping

from mobilenet_common.checkpoints.files import as_array, own_options, read
from mobilenet_common.checkpoints.layouts import LAYOUTS
from mobilenet_common.errors import CheckpointError, unknown_name

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
    """

    tensors: dict
    layout: object
    source: str
    checkpoint: object = None

    @classmethod
    def open(cls, source, layout=None):
        """Reads `source`, a path or a mapping of names to arrays.

        Args:
            source: See `load_checkpoint`.
            layout: A name of `LAYOUTS`; None to recognise it by the tensors' names.

        Raises:
            ValueError: An unknown layout, or a source that is neither a path nor a mapping.
            CheckpointError: The source can't be read, or its layout isn't recognised.
        """
        if layout is not None and layout not in LAYOUTS:
            raise unknown_name("layout", layout, LAYOUTS)
        if isinstance(source, Mapping):
            tensors, name = {str(key): as_array(value) for key, value in source.items()}, "the mapping"
        elif isinstance(source, (str, os.PathLike)):
            tensors, name = read(source), str(source)
        else:
            raise ValueError(
                f"A checkpoint of type {type(source).__name__} is not allowed: give a path or a mapping of names to "
                "arrays."
            )
        if layout in (None, "keras"):
            tensors = {_numbered(key): value for key, value in tensors.items()}
        if layout is None:
            layout = next((known.name for known in LAYOUTS.values() if known.recognises(tensors)), None)
        if layout is None:
            raise CheckpointError(
                f"{name} does not look like a MobileNet of any known layout ({', '.join(LAYOUTS)}): its first tensors "
                f"are {', '.join(list(tensors)[:3]) or 'none'}."
            )
        return cls(LAYOUTS[layout].spelled(tensors), LAYOUTS[layout], name)

    @property
    def num_classes(self):
        """The classifier's outputs, or None if there is no classifier in it."""
        for name, tensor in self.tensors.items():
            if self.layout.classifier.fullmatch(name):
                return int(tensor.shape[0])
        return None

    def for_classes(self, num_classes):
        """This without the class for the background, if it is what `num_classes` outputs have no place for."""
        if not self.layout.background or self.num_classes != num_classes + 1:
            return self
        tensors = {
            name: tensor[1:] if name in ("classifier.weight", "classifier.bias") else tensor
            for name, tensor in self.tensors.items()
        }
        return dataclasses.replace(self, tensors=tensors)

    def conventions(self, architecture):
        """`padding` and `norm_epsilon` of the models that such a checkpoint comes from, as far as names tell."""
        if self.checkpoint is not None:
            return {"padding": self.checkpoint.padding, "norm_epsilon": self.checkpoint.norm_epsilon}
        layout = self.layout.name
        if layout in ("keras", "huggingface"):
            return {"padding": "same", "norm_epsilon": 1e-3}
        if layout == "native":
            own = own_options(self.source)
            return {name: own[name] for name in ("padding", "norm_epsilon") if name in own}
        epsilon = 1e-5
        if layout == "timm" and architecture.name == "mobilenetv3_rw":
            epsilon = 1e-3
        if layout == "torchvision" and any(".block." in name for name in self.tensors):  # V3
            epsilon = 1e-3
        return {"padding": "symmetric", "norm_epsilon": epsilon}


def _numbered(name):
    """`conv1/kernel:0` and `conv1/conv1/kernel` as `conv1/0`: Keras's files number a layer's variables."""
    *path, last = name.removesuffix(":0").split("/")
    if not path or last not in _KERAS_INDEX:
        return name
    if len(path) > 1 and path[-1] == path[-2]:
        path.pop()
    return f"{'/'.join(path)}/{_KERAS_INDEX[last]}"
