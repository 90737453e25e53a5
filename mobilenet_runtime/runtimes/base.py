"""The base class of exported models, and the errors that runtimes raise."""

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
    """The library that runs a format is not installed. The message names the extra that installs it."""


class RuntimeFailure(MobileNetError, ValueError):
    """A file can't be loaded or run. The message names the file and the runtime, and gives the runtime's reason."""


def imported(module, extra="export"):
    """Import and return a module of a runtime.

    Args:
        module: Name of the module.
        extra: Name of the optional extra that installs the module, for the error message.

    Raises:
        RuntimeMissing: If the module is not installed.
    """
    return import_library(module, extra, "This format", RuntimeMissing)


@contextlib.contextmanager
def opening_errors(path, runtime):
    """Convert any exception that a runtime raises while it opens a file to a `RuntimeFailure` that names the file."""
    try:
        yield
    except (RuntimeMissing, RuntimeFailure):
        raise
    except Exception as error:
        # Errors of the operating system have an errno. TensorFlow raises an OSError without one for a damaged file.
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise RuntimeFailure(f"{runtime} can't open {path}: {_reason(error)}.") from error
        raise RuntimeFailure(
            f"{runtime} can't load {path}: {_reason(error)}. If the file is damaged or has another format, export it "
            "again."
        ) from error


@contextlib.contextmanager
def running_errors(path, runtime, shape):
    """Convert any exception that a runtime raises while it runs a file on a batch of `shape` to a `RuntimeFailure`."""
    try:
        yield
    except (RuntimeMissing, RuntimeFailure):
        raise
    except Exception as error:
        raise RuntimeFailure(f"{runtime} can't run {path} on a batch of shape {shape}: {_reason(error)}.") from error


def _reason(error):
    """Return the first informative line of an error's message: OpenVINO's messages begin with source locations."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    informative = [line for line in lines if not line.startswith(("Exception from ", "Check '"))]
    return (informative or lines or [type(error).__name__])[0].rstrip(".!")


class Exported(abc.ABC):
    """Base class of exported models, which run in the runtime of their format.

    Instances are thread-safe: any number of threads may call an instance and its methods `operations()` and
    `placement()` at the same time. How many calls run in parallel depends on the runtime; see the subclasses.

    Args:
        path: Path of the file or folder.
        threads: Number of threads that the runtime may use, or None for the runtime's default.

    Attributes:
        path: Path of the file or folder, as a string.
        runtime: Name and version of the library that runs the file.
        threads: Number of threads that the runtime may use, or None for the runtime's default.
        input_shape: Shape of the input in the file's layout, `(batch, height, width, channels)` or `(batch, channels,
            height, width)`, with None for dynamic axes.
        output_names: Names of the outputs, in order.
        metadata: The file's `Metadata`, or None.
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
        """Set `input_shape` and `output_names`.

        Args:
            input_shapes: Shape of each input, with None or -1 for dynamic axes.
            output_names: Names of the outputs, in order.

        Raises:
            RuntimeFailure: If the model's input is not a single batch of images.
        """
        shapes = [tuple(None if n is None or n < 0 else int(n) for n in shape) for shape in input_shapes]
        if [len(shape) for shape in shapes] != [4]:
            raise RuntimeFailure(
                f"{self.path} has inputs of the shapes {shapes}, but only models with one batch of images as input are "
                "supported: use its runtime directly."
            )
        (self.input_shape,) = shapes
        self.output_names = list(output_names)

    def _set_metadata(self, text):
        """Set the metadata from the JSON text in the file. An empty text sets nothing.

        Raises:
            RuntimeFailure: If the metadata is damaged or belongs to another model.
        """
        if not text:
            return
        try:
            self.metadata = Metadata.from_json(text)
        except ArgumentError as error:
            raise RuntimeFailure(f"{self.path} has damaged metadata: {error}") from error
        self._transform = self.metadata.transform()
        metadata_shape = (*self.metadata.size, self.metadata.channels)
        if any(n not in (None, size) for n, size in zip(self.image_shape, metadata_shape, strict=True)):
            raise RuntimeFailure(
                f"{self.path} has another model's metadata: its images have the shape {self.image_shape}, but the "
                f"metadata says {metadata_shape}."
            )

    @property
    def data_format(self) -> str:
        """Data format of the file's input, `"channels_last"` or `"channels_first"`."""
        if self.metadata is not None:
            return "channels_last" if self.metadata.layout == "NHWC" else "channels_first"
        _, first, _, last = self.input_shape
        return "channels_first" if first in (1, 3) and last not in (1, 3) else "channels_last"

    @property
    def batch_size(self) -> int | None:
        """Fixed batch size of the file, or None if the batch axis is dynamic."""
        return self.input_shape[0]

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """Shape of an image, `(height, width, channels)`, with None for dynamic axes."""
        _, *axes = self.input_shape
        return (*axes[1:], axes[0]) if self.data_format == "channels_first" else tuple(axes)

    @property
    def size(self) -> tuple[int, int]:
        """Size of an image, `(height, width)`.

        Raises:
            ValueError: If the height or the width is dynamic.
        """
        height, width, _ = self.image_shape
        if height is None or width is None:
            raise ArgumentError(
                f"{self.path} takes images of any size, but a fixed size is needed here: pass images, or export the "
                "model with an image_size."
            )
        return height, width

    def __call__(self, images: Any) -> np.ndarray | dict[str, np.ndarray]:
        """Run the model on a batch of images.

        Args:
            images: Array or tensor of shape `(batch, height, width, channels)`: floats that are normalized as the model
                expects, or integers, which are pixels in 0..255 and are normalized according to the file's metadata.
                The number of images is arbitrary; if the file has a fixed batch size, they run in several batches.

        Returns:
            A float32 array of shape `(batch, ...)`, or `{name: array}` for a model with several outputs. Feature maps
            have the shape `(batch, height, width, channels)`, whatever the file's layout.

        Raises:
            ValueError: If there are no images, or if their shape or type doesn't fit the model.
            RuntimeFailure: If the runtime can't run the file.

        Warns:
            MobileNetWarning: If floats are outside the range that the metadata implies, or if integers are not
                normalized because the file has no metadata. Each warning is issued once per object.
        """
        images = as_numpy(images)
        self._check(images)
        if self._transform is not None:
            return self.outputs(as_model_input(images, self._transform, self, self.path, "images"))
        if images.dtype.kind in "ui":
            warn_once(
                self,
                f"images of type {images.dtype} are passed to {self.path} without normalization because it has no "
                "metadata: if the model doesn't take pixels in 0..255, normalize them first.",
            )
        return self.outputs(images.astype("float32"))

    def outputs(self, images: np.ndarray) -> Any:
        """Run the model on preprocessed float32 images of shape `(batch, height, width, channels)`; see `__call__`."""
        self._check(images)
        is_channels_first = self.data_format == "channels_first"
        if is_channels_first:
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        size = self.batch_size or len(images)
        parts = []
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            padding = size - len(batch)
            if padding:
                batch = np.concatenate([batch, np.zeros((padding, *batch.shape[1:]), batch.dtype)])
            with running_errors(self.path, self.runtime, batch.shape):
                parts.append([np.asarray(output, "float32")[: size - padding] for output in self.run(batch)])
        outputs = [np.concatenate(part) for part in zip(*parts, strict=True)]
        if is_channels_first:
            outputs = [output.transpose(0, 2, 3, 1) if output.ndim == 4 else output for output in outputs]
        return outputs[0] if len(outputs) == 1 else dict(zip(self.output_names, outputs, strict=True))

    def _check(self, images):
        expected = self.image_shape
        fits = images.ndim == 4 and all(n in (None, size) for n, size in zip(expected, images.shape[1:], strict=True))
        if not fits or not len(images):
            axes = ", ".join("any" if n is None else str(n) for n in expected)
            raise ArgumentError(
                f"images of shape {images.shape} are not allowed: {self.path} takes (batch, {axes}) with at least one "
                "image."
            )

    def _example_shape(self):
        """Return the shape of one batch in the file's layout, with batch size 1 if the batch axis is dynamic.

        Raises:
            ValueError: If the height or the width is dynamic.
        """
        self.size  # noqa: B018 - raises the error
        return (self.batch_size or 1, *self.input_shape[1:])

    @abc.abstractmethod
    def run(self, batch: np.ndarray) -> list[np.ndarray]:
        """Run one batch in the file's layout and batch size.

        Args:
            batch: float32 array with the shape that the file expects.

        Returns:
            A list of arrays, in the order of `output_names`.
        """

    @abc.abstractmethod
    def operations(self) -> dict[str, int]:
        """Return the number of operations of each type in the graph, `{type: count}`, with the format's type names."""

    @abc.abstractmethod
    def placement(self) -> dict[str, int]:
        """Return how the operations are distributed, `{backend: number of operations}`, as the runtime reports it.

        A backend is, for example, an execution provider of ONNX Runtime, or XNNPACK in LiteRT.
        """
