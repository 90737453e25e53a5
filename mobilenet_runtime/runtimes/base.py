"""What all runtimes have in common: a file that is opened, images that go in, outputs that come out."""

import abc
import contextlib
import os
from typing import Any

import numpy as np

from mobilenet_common.errors import ArgumentError, MobileNetError
from mobilenet_common.libraries import import_library
from mobilenet_common.notices import warn_once
from mobilenet_common.types import PathLike
from mobilenet_runtime.images import as_numpy
from mobilenet_runtime.inputs import as_model_input
from mobilenet_runtime.metadata import Metadata
from mobilenet_runtime.transform import Preprocessing


class RuntimeMissing(MobileNetError, ImportError):
    """The library that runs a format is not installed; the message says which extra has it."""


class RuntimeFailure(MobileNetError, ValueError):
    """A file that its runtime can't open or run; the message names both and gives the runtime's reason."""


def imported(module, extra="export"):
    """Return a module of a runtime, which is imported when first needed.

    Raises:
        RuntimeMissing: It is not installed.
    """
    return import_library(module, extra, "This format", RuntimeMissing)


@contextlib.contextmanager
def refusals(path, runtime):
    """Raise whatever a runtime raises while it reads a file as a `RuntimeFailure` about the file."""
    try:
        yield
    except (RuntimeMissing, RuntimeFailure):
        raise
    except Exception as error:
        # What the system refuses has a number; TensorFlow raises an OSError without one for a damaged file.
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise RuntimeFailure(f"{runtime} can't open {path}: {_reason(error)}.") from error
        raise RuntimeFailure(
            f"{runtime} refuses {path}: {_reason(error)}. Export it again if it is damaged or of another kind."
        ) from error


@contextlib.contextmanager
def failures(path, runtime, shape):
    """Raise whatever a runtime raises while it runs a file on a batch of `shape` as a `RuntimeFailure`."""
    try:
        yield
    except (RuntimeMissing, RuntimeFailure):
        raise
    except Exception as error:
        raise RuntimeFailure(f"{runtime} can't run {path} on a batch of shape {shape}: {_reason(error)}.") from error


def _reason(error):
    """Return the first line that says something: OpenVINO's begin with places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Exception from ", "Check '"))]
    return (said or lines or [type(error).__name__])[0].rstrip(".!")


class Exported(abc.ABC):
    """An exported model in its own runtime.

    Any number of threads may call one object at once, and ask it for `operations()` and `placement()` meanwhile. How
    much of that runs in parallel is the runtime's matter: see each class.

    Attributes:
        path: The file or folder.
        runtime: Name and version of the library that runs it.
        threads: How many the runtime may use, or None for its own choice.
        input_shape: `(batch, height, width, channels)` in the file's own order; None where an axis is free.
        output_names: Of the outputs, in their order.
        metadata: The `Metadata` in the file, or None.
    """

    def __init__(self, path: PathLike, threads: int | None):
        self.path = os.fspath(path)
        self.threads = threads
        self.metadata: Metadata | None = None
        self._transform: Preprocessing | None = None
        self.runtime: str
        self.input_shape: tuple[int | None, ...]
        self.output_names: list[str]

    def _describe(self, input_shapes, output_names):
        """Set what the file takes and give, from the shapes of its inputs with None or -1 for a free axis.

        Raises:
            RuntimeFailure: It takes something else than one batch of images.
        """
        shapes = [tuple(None if n is None or n < 0 else int(n) for n in shape) for shape in input_shapes]
        if [len(shape) for shape in shapes] != [4]:
            raise RuntimeFailure(
                f"{self.path} takes inputs of the shapes {shapes}, but what is run here takes one batch of images: "
                "call its runtime yourself."
            )
        (self.input_shape,) = shapes
        self.output_names = list(output_names)

    def _keep(self, text):
        """Set the metadata from the text in the file, if it has one.

        Raises:
            RuntimeFailure: They are damaged, or another model's.
        """
        if not text:
            return
        try:
            self.metadata = Metadata.from_json(text)
        except ArgumentError as error:
            raise RuntimeFailure(f"{self.path} has damaged metadata: {error}") from error
        self._transform = self.metadata.transform()
        described = (*self.metadata.size, self.metadata.channels)
        if any(n not in (None, own) for n, own in zip(self.image_shape, described, strict=True)):
            raise RuntimeFailure(
                f"{self.path} has another model's metadata: it takes images of {self.image_shape}, and they say "
                f"{described}."
            )

    @property
    def data_format(self) -> str:
        """`"channels_last"` or `"channels_first"`, as the input's axes are."""
        if self.metadata is not None:
            return "channels_last" if self.metadata.layout == "NHWC" else "channels_first"
        _, first, _, last = self.input_shape
        return "channels_first" if first in (1, 3) and last not in (1, 3) else "channels_last"

    @property
    def batch_size(self) -> int | None:
        """Images that the file takes at once, or None for any number."""
        return self.input_shape[0]

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """`(height, width, channels)` of an image; None where an axis is free."""
        _, *axes = self.input_shape
        return (*axes[1:], axes[0]) if self.data_format == "channels_first" else tuple(axes)

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)` of an image.

        Raises:
            ValueError: One of them is free.
        """
        height, width, _ = self.image_shape
        if height is None or width is None:
            raise ArgumentError(
                f"{self.path} takes images of any size, so that one has to be chosen: give images, or export it "
                "with an image_size."
            )
        return height, width

    def __call__(self, images: Any) -> np.ndarray | dict[str, np.ndarray]:
        """Return the outputs to a batch of images.

        Args:
            images: `(batch, height, width, channels)`, floats that are normalized as the model wants them, or
                integers, which are pixels in 0..255 and are normalized here by the file's metadata; any number of
                them, which are run in batches of the file's own size.

        Returns:
            An array of float32, `(batch, ...)`, or `{name: array}` of a model with several outputs. Feature maps are
            `(batch, height, width, channels)`, whatever the file's own order.

        Raises:
            ValueError: There are no images, their shape is not the file's, or their type is none of these.
            RuntimeFailure: The runtime can't run the file.

        Warns:
            MobileNetWarning: Floats are not in the range that the metadata say, or integers go in as they are, since
                there are no metadata; once for a file.
        """
        images = as_numpy(images)
        self._check(images)
        if self._transform is not None:
            return self.outputs(as_model_input(images, self._transform, self, self.path, "images"))
        if images.dtype.kind in "ui":
            warn_once(
                self,
                f"images of type {images.dtype} go into {self.path} as they are, since it has no metadata: if its "
                "model does not take pixels in 0..255, normalize them first.",
            )
        return self.outputs(images.astype("float32"))

    def outputs(self, images: np.ndarray) -> Any:
        """Return the outputs to images in float32 that are right for the file already; see `__call__`."""
        self._check(images)
        first = self.data_format == "channels_first"
        if first:
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        size = self.batch_size or len(images)
        parts = []
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            missing = size - len(batch)
            if missing:
                batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
            with failures(self.path, self.runtime, batch.shape):
                parts.append([np.asarray(answer, "float32")[: size - missing] for answer in self.run(batch)])
        answers = [np.concatenate(part) for part in zip(*parts, strict=True)]
        answers = [answer.transpose(0, 2, 3, 1) if first and answer.ndim == 4 else answer for answer in answers]
        return answers[0] if len(answers) == 1 else dict(zip(self.output_names, answers, strict=True))

    def _check(self, images):
        wanted = self.image_shape
        fits = images.ndim == 4 and all(n in (None, own) for n, own in zip(wanted, images.shape[1:], strict=True))
        if not fits or not len(images):
            axes = ", ".join("any" if n is None else str(n) for n in wanted)
            raise ArgumentError(
                f"images of shape {images.shape} are not allowed: {self.path} takes (batch, {axes}), one image or more."
            )

    def _example_shape(self):
        """Return a shape of one batch in the file's own order, of one image where any number goes in.

        Raises:
            ValueError: Height, width or channels are free.
        """
        self.size  # noqa: B018 - it raises
        return (self.batch_size or 1, *self.input_shape[1:])

    @abc.abstractmethod
    def run(self, batch: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for one batch in the file's own layout and size, as a list of arrays by `output_names`."""

    @abc.abstractmethod
    def operations(self) -> dict[str, int]:
        """Return `{operation's name: how many}` of the graph, as the format names them."""

    @abc.abstractmethod
    def placement(self) -> dict[str, int]:
        """Return `{who computes: how many operations}`, as far as the runtime reports it."""
