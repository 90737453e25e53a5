"""What all runtimes have in common: a file that is opened, pictures that go in, answers that come out."""

import abc
import importlib
import os

import numpy as np


class RuntimeMissing(ImportError):
    """The library that runs a format is not installed; the message says which extra has it."""


def imported(module, extra="export"):
    """A module of a runtime, which is imported when first needed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise RuntimeMissing(f"{package} is not installed ({error}): pip install 'mobilenet-zoo[{extra}]'.") from error


class Exported(abc.ABC):
    """An exported model in its own runtime.

    Attributes:
        path: The file or folder.
        runtime: Name and version of the library that runs it.
        input_shape: `(batch, ...)` as the file has it; None where an axis is free.
        metadata: What travels with the model, or an empty dictionary.
    """

    def __init__(self, path, threads):
        self.path = os.fspath(path)
        self.threads = threads
        self.metadata = {}

    @property
    def data_format(self):
        """`"channels_last"` or `"channels_first"`, as the input's axes are."""
        return "channels_first" if self.input_shape[1] in (1, 3) else "channels_last"

    @property
    def batch_size(self):
        """Pictures that the file takes at once, or None for any number."""
        return self.input_shape[0]

    def __call__(self, pictures):
        """The answers to a batch of pictures, float32.

        Args:
            pictures: `(batch, height, width, channels)` in float32, normalised as the model wants them; any number
                of them, which are run in batches of the file's own size.
        """
        pictures = np.asarray(pictures, "float32")
        if self.data_format == "channels_first":
            pictures = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
        size = self.batch_size or len(pictures)
        answers = []
        for start in range(0, len(pictures), size):
            batch = pictures[start : start + size]
            missing = size - len(batch)
            if missing:
                batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
            answers.append(self.run(batch)[: size - missing])
        return np.concatenate(answers)

    @abc.abstractmethod
    def run(self, batch):
        """The answers to one batch in the file's own layout and size, as a NumPy array of float32."""

    @abc.abstractmethod
    def operations(self):
        """`{operation's name: how many}` of the graph, as the format names them."""
