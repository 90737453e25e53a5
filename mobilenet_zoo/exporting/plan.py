"""What an export is to be: its arguments, checked, and what follows from them for every format."""

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
from mobilenet_zoo.exporting.calibration import made_up, read_calibration
from mobilenet_zoo.exporting.formats import Format
from mobilenet_zoo.exporting.job import Job
from mobilenet_zoo.exporting.prepared import data_format_of, ends_in_softmax
from mobilenet_zoo.exporting.reference import Reference
from mobilenet_zoo.exporting.verification import deviation
from mobilenet_zoo.model_preprocessing import preprocessing
from mobilenet_zoo.registry import WEIGHTS


@dataclasses.dataclass(frozen=True)
class Plan:
    """The checked arguments of `export`, and what follows from them; see `make_plan`.

    Attributes:
        model: A functional model.
        modules: To import before the model is loaded in another process.
        transform: The `Preprocessing` of its images at the file's size, channels last as images are compared.
        normalizes: Whether the model itself normalizes.
        scaling: `(mean, std)` that the file applies to pixels in 0..255, or None.
        batch_size, quantization, calibration, include_softmax, metadata, verify, float_blocks, reduce_range, progress:
            The arguments of `export`.
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
        """Height and width of the file's images."""
        return self.transform.size

    def check(self, format: Any) -> None:
        """Raise a `ValueError` or `ExportError` if the file can't be written in `format`."""
        if self.quantization is not None and self.quantization not in format.quantizations:
            offered = ", ".join(map(repr, format.quantizations)) or "none"
            raise ArgumentError(
                f"quantization={self.quantization!r} is not offered for {format.title}. Offered: {offered}."
            )
        if self.batch_size is None and not format.any_batch:
            raise ArgumentError(
                f"batch_size=None is not allowed for {format.title}, whose fast kernels need fixed sizes: pass a "
                "number."
            )
        if self.reduce_range and not format.reduces_range:
            raise ArgumentError(
                f"reduce_range=True is not allowed for {format.title}, whose sums never overflow: leave it out."
            )
        format.check_installed(self.quantization)

    @functools.cached_property
    def images(self):
        """The `Images` to calibrate and compare with, as the model takes them."""
        if self.calibration is not None:
            return read_calibration(self.calibration, self.transform, self.model)
        shape = (*self.size, self.transform.channels)
        scaling = None if self.normalizes else (self.transform.mean, self.transform.std)
        return made_up(shape, scaling, self.batch_size)

    @functools.cached_property
    def reference(self):
        """The model's own outputs."""
        try:
            return Reference(self.model, self.size, self.include_softmax)
        except (ValueError, TypeError) as error:
            line = str(error).strip().splitlines()[0]
            raise ExportError(f"{self.model.name} can't be built for images of {self.size}: {line}") from error

    @functools.cached_property
    def expected(self):
        """The model's outputs to the images that are compared."""
        return self.reference(self.images.checked)

    @functools.cached_property
    def sensitivity(self):
        """How far the model's outputs move, as a fraction of the largest, when its images move by 1e-6."""
        images = self.images.checked
        noise = np.random.default_rng(0).standard_normal(images.shape)
        moved = self.reference((images * (1 + 1e-6 * noise)).astype("float32"))
        return max(deviation(y, expected) for y, expected in zip(moved, self.expected, strict=True))

    def fed(self, images):
        """Return images as the model takes them, as the file takes them."""
        if self.scaling is None:
            return images
        mean, std = (np.asarray(values, "float32") for values in self.scaling)
        return (images * std + mean) * np.float32(255)

    @functools.cached_property
    def record(self):
        """The `Metadata` that travel with the model; the process that writes sets the layout."""
        facts, model, transform = facts_of(self.model), self.model, self.transform
        base = facts.base if facts else None
        has_classes = is_classifier(model)
        gives = "features"
        if has_classes:
            soft = ends_in_softmax(model) if self.include_softmax is None else self.include_softmax
            gives = "probabilities" if soft else "logits"
        inside = self.normalizes or self.scaling is not None
        return Metadata(
            name=model.name,
            class_names=_class_names(facts, model.outputs[0].shape[-1]) if has_classes else None,
            size=self.size,
            channels=transform.channels,
            layout="NHWC",
            crop=transform.crop,
            interpolation=transform.interpolation,
            mean=None if inside else transform.mean,
            std=None if inside else transform.std,
            gives=gives,
            source=base,
            license=WEIGHTS[base].license if base in WEIGHTS else None,
        )

    def job(self, path: Path, format: Format, calibration: str | None, **changes: Any) -> Job:
        """Return the order for the process that writes; `changes` are fields of `Job`."""
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
    """Check the arguments of `export`; see there."""
    known = facts_of(model) if isinstance(model, keras.Model) else None
    model = remember(as_functional(model, "export"), known)
    if len(model.inputs) != 1:
        raise ArgumentError(
            f"export takes a functional keras.Model with one input, and {model.name} has {len(model.inputs)}."
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
            f"include_softmax={include_softmax} is for classifiers, and {model.name} gives features: leave it out."
        )
    if quantization == "int8" and calibration is None:
        raise ArgumentError(
            'quantization="int8" needs calibration: a folder or an array of images such as the model will see.'
        )
    names = [layer.name for layer in model.layers]
    for name in float_blocks or ():
        if name not in names:
            raise unknown_name("float_blocks", name, names)
    if float_blocks and quantization is None:
        raise ArgumentError("float_blocks is for quantization: pass quantization too, or leave it out.")
    if reduce_range and quantization != "int8":
        raise ArgumentError(
            f'reduce_range=True is for quantization="int8", and quantization={quantization!r}: leave it out.'
        )
    if progress is not None and not callable(progress):
        raise ArgumentError(f"progress must be a function that takes an ExportStep, or None, got {progress!r}.")
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
            f"{model.name} takes images of any size, and an exported file one: pass image_size, such as image_size=224."
        )
    return int(height), int(width)


def _modules_of(model):
    """Return the modules that have to be imported before the model is loaded elsewhere.

    Raises:
        ExportError: Another process can't import one.
    """
    kinds = {type(layer) for layer in [model, *all_layers(model)]}
    names = {kind.__module__ for kind in kinds if kind.__module__.split(".")[0] not in ("keras", "mobilenet_common")}
    if "__main__" in names:
        own = ", ".join(sorted(kind.__name__ for kind in kinds if kind.__module__ == "__main__"))
        raise ExportError(
            f"{model.name} has layers that only the running program knows ({own}): put them into a module of their "
            "own, registered with Keras, which the process that writes can import."
        )
    return sorted(names)


def _class_names(facts, count):
    """Return the names of a classifier's outputs, or None."""
    if facts and facts.class_names:
        return facts.class_names
    names = [name for _, name in imagenet_classes()]
    if facts and facts.base in WEIGHTS and count in (len(names), len(names) + 1):
        return (*["background"] * (count - len(names)), *names)
    return None
