"""The plan of an export: its validated arguments, and values derived from them for every format."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mobilenet_common.errors import ArgumentError, ExportError, integer, number, one_of, pair, plain_value, unknown_name
from mobilenet_common.facts import facts_of, remember
from mobilenet_common.nesting import all_layers, as_functional
from mobilenet_common.ops.layout import split_shape
from mobilenet_runtime.class_names import imagenet_classes
from mobilenet_runtime.metadata import Metadata
from mobilenet_runtime.transform import Preprocessing
from mobilenet_zoo.classifiers import is_classifier
from mobilenet_zoo.exporting.calibration import generate_images, read_calibration
from mobilenet_zoo.exporting.formats import Format
from mobilenet_zoo.exporting.job import Job
from mobilenet_zoo.exporting.prepared import data_format_of, ends_in_softmax
from mobilenet_zoo.exporting.reference import Reference
from mobilenet_zoo.exporting.verification import deviation
from mobilenet_zoo.model_preprocessing import preprocessing
from mobilenet_zoo.registry import WEIGHTS


@dataclasses.dataclass(frozen=True)
class Plan:
    """Validated arguments of `export`, and values derived from them; created by `make_plan`.

    Attributes:
        model: Functional model to export.
        modules: Names of the modules to import before another process loads the model.
        transform: `Preprocessing` of the images at the size that the file takes, channels last.
        normalizes: Whether the model itself normalizes its input.
        scaling: `(mean, std)`, for pixels in 0..1, of the normalization that is added to the file, or None.
        batch_size, quantization, calibration, include_softmax, metadata, verify, float_blocks, reduce_range, progress:
            Arguments of `export`.
    """

    model: keras.Model
    modules: tuple[str, ...]
    transform: Preprocessing
    normalizes: bool
    scaling: tuple[tuple[float, ...], tuple[float, ...]] | None
    batch_size: int | None
    quantization: str | None
    calibration: Any
    include_softmax: bool | None
    metadata: bool
    verify: bool | float
    float_blocks: tuple[str, ...] | None
    reduce_range: bool
    progress: Callable | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images that the file takes."""
        return self.transform.size

    def check(self, format: Any) -> None:
        """Raise a `ValueError` or `ExportError` if the file can't be written in `format`."""
        if self.quantization is not None and self.quantization not in format.quantizations:
            allowed = ", ".join(map(repr, format.quantizations)) or "none"
            raise ArgumentError(
                f"quantization={self.quantization!r} is not supported for {format.title}. Supported: {allowed}."
            )
        if self.batch_size is None and not format.any_batch:
            raise ArgumentError(
                f"batch_size=None is not allowed for {format.title}, because its fast kernels need fixed sizes: pass "
                "a number."
            )
        if self.reduce_range and not format.reduces_range:
            raise ArgumentError(
                f"reduce_range=True is not allowed for {format.title}, because its sums never overflow: remove it."
            )
        format.check_installed(self.quantization)

    @functools.cached_property
    def images(self):
        """`Images` for calibration and comparison, in the value range that the model takes."""
        if self.calibration is not None:
            return read_calibration(self.calibration, self.transform, self.model)
        shape = (*self.size, self.transform.channels)
        scaling = None if self.normalizes else (self.transform.mean, self.transform.std)
        return generate_images(shape, scaling, self.batch_size)

    @functools.cached_property
    def reference(self):
        """`Reference` that computes the outputs of the model itself."""
        try:
            return Reference(self.model, self.size, self.include_softmax)
        except (ValueError, TypeError) as error:
            line = str(error).strip().splitlines()[0]
            raise ExportError(f"{self.model.name} can't be built for images of size {self.size}: {line}") from error

    @functools.cached_property
    def expected(self):
        """Outputs of the model for the validation images."""
        return self.reference(self.images.checked)

    @functools.cached_property
    def sensitivity(self):
        """Largest change of the outputs, as a fraction of the largest output, for a relative image change of 1e-6."""
        images = self.images.checked
        noise = np.random.default_rng(0).standard_normal(images.shape)
        outputs = self.reference((images * (1 + 1e-6 * noise)).astype("float32"))
        return max(deviation(y, expected) for y, expected in zip(outputs, self.expected, strict=True))

    def to_file_input(self, images):
        """Convert images from the value range that the model takes to the range that the exported file takes."""
        if self.scaling is None:
            return images
        mean, std = (np.asarray(values, "float32") for values in self.scaling)
        return (images * std + mean) * np.float32(255)

    @functools.cached_property
    def record(self):
        """`Metadata` of the file, in the layout `"NHWC"`; the process that writes the file sets the real layout."""
        facts, model, transform = facts_of(self.model), self.model, self.transform
        base = facts.base if facts else None
        has_classes = is_classifier(model)
        gives = "features"
        if has_classes:
            has_softmax = ends_in_softmax(model) if self.include_softmax is None else self.include_softmax
            gives = "probabilities" if has_softmax else "logits"
        normalizes = self.normalizes or self.scaling is not None
        return Metadata(
            name=model.name,
            class_names=_class_names(facts, model.outputs[0].shape[-1]) if has_classes else None,
            size=self.size,
            channels=transform.channels,
            layout="NHWC",
            crop=transform.crop,
            interpolation=transform.interpolation,
            mean=None if normalizes else transform.mean,
            std=None if normalizes else transform.std,
            gives=gives,
            source=base,
            license=WEIGHTS[base].license if base in WEIGHTS else None,
        )

    def job(self, path: Path, format: Format, calibration: str | None, **changes: Any) -> Job:
        """Return the `Job` that writes the file; `changes` replace fields of the job."""
        job = Job(
            path=str(path),
            format=format.name,
            batch_size=self.batch_size,
            image_size=self.size,
            scaling=self.scaling,
            softmax=self.include_softmax,
            quantization=self.quantization,
            calibration=calibration,
            float_blocks=self.float_blocks or (),
            reduce_range=self.reduce_range,
            metadata=self.record.as_json() if self.metadata else None,
        )
        return dataclasses.replace(job, **changes)


def make_plan(
    model: keras.Model,
    *,
    batch_size: int | None = 1,
    image_size: tuple[int, int] | int | None = None,
    quantization: str | None = None,
    calibration: Any = None,
    include_preprocessing: bool = False,
    include_softmax: bool | None = None,
    metadata: bool = True,
    verify: bool | float = True,
    float_blocks: Sequence[str] | None = None,
    reduce_range: bool = False,
    progress: Callable | None = None,
) -> Plan:
    """Validate the arguments of `export`, and return a `Plan`. See `export` for the arguments."""
    facts = facts_of(model) if isinstance(model, keras.Model) else None
    model = remember(as_functional(model, "export"), facts)
    if len(model.inputs) != 1:
        raise ArgumentError(
            f"export takes a functional keras.Model with one input, but {model.name} has {len(model.inputs)} inputs."
        )
    if batch_size is not None:
        batch_size = integer("batch_size", batch_size, 1)
    one_of("quantization", quantization, (None, "float16", "dynamic", "int8"))
    include_preprocessing = one_of("include_preprocessing", include_preprocessing, (True, False))
    metadata = one_of("metadata", metadata, (True, False))
    reduce_range = one_of("reduce_range", reduce_range, (True, False))
    include_softmax = one_of("include_softmax", include_softmax, (None, True, False))
    verify = plain_value(verify)
    if not isinstance(verify, bool):
        verify = number("verify", verify, 0, float("inf"))
    if include_softmax is not None and (len(model.outputs) != 1 or len(model.outputs[0].shape) != 2):
        raise ArgumentError(
            f"include_softmax={include_softmax} is for classifiers, but {model.name} returns features: remove it."
        )
    if quantization == "int8" and calibration is None:
        raise ArgumentError(
            'quantization="int8" needs calibration: pass a folder or an array of images like those that the model will '
            "see."
        )
    names = [layer.name for layer in model.layers]
    for name in float_blocks or ():
        if name not in names:
            raise unknown_name("float_blocks", name, names)
    if float_blocks and quantization is None:
        raise ArgumentError("float_blocks needs quantization: pass quantization too, or remove float_blocks.")
    if reduce_range and quantization != "int8":
        raise ArgumentError(
            f'reduce_range=True is for quantization="int8", but quantization={quantization!r}: remove reduce_range.'
        )
    if progress is not None and not callable(progress):
        raise ArgumentError(f"progress={progress!r} is not allowed: pass a function that takes an ExportStep, or None.")
    modules = _modules_of(model)
    transform = preprocessing(model, input_size=_size(model, image_size))
    mean, std = transform.mean, transform.std
    scaling = (mean, std) if include_preprocessing and mean is not None and std is not None else None
    return Plan(
        model=model,
        modules=tuple(modules),
        transform=dataclasses.replace(transform, data_format="channels_last"),
        normalizes=mean is None,
        scaling=scaling,
        batch_size=batch_size,
        quantization=quantization,
        calibration=calibration,
        include_softmax=include_softmax,
        metadata=metadata,
        verify=verify,
        float_blocks=None if float_blocks is None else tuple(float_blocks),
        reduce_range=reduce_range,
        progress=progress,
    )


def _size(model, image_size) -> tuple[int, int]:
    _, height, width, _ = split_shape(model.inputs[0].shape, data_format_of(model))
    if image_size is not None:
        return pair("image_size", image_size, 1, "a pair (height, width)")
    if height is None or width is None:
        raise ArgumentError(
            f"{model.name} takes images of any size, but an exported file has a fixed size: pass image_size, such as "
            "image_size=224."
        )
    return int(height), int(width)


def _modules_of(model):
    """Return the names of the modules that another process must import before it loads the model.

    Raises:
        ExportError: A layer is defined in `__main__`, which another process can't import.
    """
    classes = {type(layer) for layer in [model, *all_layers(model)]}
    names = {cls.__module__ for cls in classes if cls.__module__.split(".")[0] not in ("keras", "mobilenet_common")}
    if "__main__" in names:
        layers = ", ".join(sorted(cls.__name__ for cls in classes if cls.__module__ == "__main__"))
        raise ExportError(
            f"{model.name} has layers that are defined in the running program ({layers}): move them into a module that "
            "the exporting process can import, and register them with Keras."
        )
    return sorted(names)


def _class_names(facts, count):
    """Return the class names of a classifier's outputs, or None if they are unknown."""
    if facts and facts.class_names:
        return facts.class_names
    names = [name for _, name in imagenet_classes()]
    if facts and facts.base in WEIGHTS and count in (len(names), len(names) + 1):
        return (*["background"] * (count - len(names)), *names)
    return None
