"""The request of a run: the arguments of `train`, resolved with the record of a resumed run and the recipe."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras

from mobilenet_common.errors import ArgumentError, integer, number
from mobilenet_common.types import PathLike
from mobilenet_zoo.names import check_model
from mobilenet_zoo.registry import check_weights_of
from mobilenet_zoo.training.data import Data
from mobilenet_zoo.training.folder import RunFolder, check_same
from mobilenet_zoo.training.recipes import load_recipe
from mobilenet_zoo.training.recipes.recipe import Distillation, Recipe

DEFAULT_MODEL, DEFAULT_RECIPE = "mobilenetv4_conv_small", "finetune"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options that may differ each time a run is resumed.

    Attributes:
        output: Folder of the run.
        checkpoint_seconds: Seconds between two checkpoints.
        keep: Number of latest checkpoints to keep.
        workers: Number of processes that read images; 0 for threads.
        damaged_limit: Maximum number of damaged images to skip; None for 1% of the images, but at least 10.
        progress: Whether to show a progress bar.
        report: Whether to write `report.html` at the end.

    Raises:
        ValueError: `checkpoint_seconds` or `keep` is out of range.
    """

    output: Path
    checkpoint_seconds: float
    keep: int
    workers: int
    damaged_limit: int | None
    progress: bool
    report: bool

    def __post_init__(self):
        seconds = number("checkpoint_seconds", self.checkpoint_seconds, 0, float("inf"))
        object.__setattr__(self, "checkpoint_seconds", seconds)
        object.__setattr__(self, "keep", integer("keep", self.keep, 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Fully resolved request of a run, which determines the run.

    Attributes:
        data: Training set and validation set.
        model: A model, or a name or path that `build` accepts.
        weights: Weights that a named model starts from; False for none, None to let the recipe decide.
        teacher: A model, a name or path that `build` accepts, or an `.npz` file of saved predictions; None if the
            recipe has no distillation.
        recipe: Recipe with the overrides applied.
        is_resumed: Whether the run was started before.
        options: Options that may differ each time the run is resumed.
    """

    data: Data
    model: keras.Model | PathLike
    weights: str | bool | None
    teacher: keras.Model | PathLike | None
    recipe: Recipe
    is_resumed: bool
    options: RunOptions

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the data, in the order of the model's outputs."""
        return self.data.train.class_names

    def record(self) -> dict[str, Any]:
        """Return the JSON-serializable record that `run.json` stores.

        A resumed run must have the same record, except for the recipe's summary and source.
        """
        return {
            "model": _name(self.model),
            "weights": self.weights,
            "teacher": _name(self.teacher),
            "classes": list(self.class_names),
            "data": fingerprint(self.data),
            "recipe": self.recipe.as_dict(),
        }


def check_names(
    model: keras.Model | PathLike | None,
    weights: str | bool | None,
    recipe: Recipe | PathLike | Mapping[str, Any] | None,
    overrides: Mapping[str, Any] | Iterable[str] | None,
    is_resumed: bool,
) -> None:
    """Raise a `ValueError` for an invalid name or recipe field before any image is read.

    Args:
        model: A model, name or path, as in `train`.
        weights: Weights of a named model, as in `train`.
        recipe: A recipe, as in `train`.
        overrides: Overrides of recipe fields, as in `train`.
        is_resumed: Whether a run is resumed, whose record replaces arguments that are None.
    """
    if recipe is not None or not is_resumed:
        load_recipe(DEFAULT_RECIPE if recipe is None else recipe, overrides)
    if model is not None and not isinstance(model, keras.Model):
        check_model("model", model)
    if weights and (model is not None or not is_resumed):
        check_weights_of(DEFAULT_MODEL if model is None else model, weights)


def read_record(folder: RunFolder, resume: bool) -> dict[str, Any] | None:
    """Return the record of the run in a folder, or None if the folder has no run yet.

    Raises:
        ValueError: The folder has a run, but `resume` is False.
    """
    if not folder.is_begun():
        return None
    if not resume:
        raise ArgumentError(
            f"{folder.path} already contains a run: resume it (resume=True, --resume), or choose another folder."
        )
    return folder.read_request()


def resolve_request(
    data: Data,
    options: RunOptions,
    recorded: Mapping[str, Any] | None,
    *,
    model: keras.Model | PathLike | None = None,
    weights: str | bool | None = None,
    teacher: keras.Model | PathLike | None = None,
    recipe: Recipe | PathLike | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | Iterable[str] | None = None,
) -> RunRequest:
    """Return the request. Arguments that are None come from the record of a resumed run, or otherwise get defaults.

    Args:
        data: Training set and validation set.
        options: Options that may differ each time the run is resumed.
        recorded: Record of the run to resume, as `RunRequest.record` returned it; None for a new run.
        model: A model, name or path, as in `train`.
        weights: Weights of a named model, as in `train`.
        teacher: A model, name, path or file of predictions, as in `train`.
        recipe: A recipe, as in `train`.
        overrides: Overrides of recipe fields, as in `train`.

    Raises:
        ValueError: The recipe is invalid or needs a teacher that is missing, or the request differs from the record.
    """
    record = {} if recorded is None else recorded
    recipe = load_recipe(record.get("recipe", DEFAULT_RECIPE) if recipe is None else recipe, overrides)
    teacher = record.get("teacher") if teacher is None else teacher
    if teacher is not None and recipe.distillation is None:
        recipe = dataclasses.replace(recipe, distillation=Distillation())
    if teacher is None and recipe.distillation is not None:
        raise ArgumentError(f"The recipe {recipe.name} needs a teacher: pass one (teacher=..., --teacher).")
    request = RunRequest(
        data=data,
        model=record.get("model", DEFAULT_MODEL) if model is None else model,
        weights=record.get("weights") if weights is None else weights,
        teacher=teacher,
        recipe=recipe,
        is_resumed=recorded is not None,
        options=options,
    )
    if recorded is not None:
        check_same(options.output, _settings(recorded), _settings(request.record()))
    return request


def fingerprint(data: Data) -> str:
    """Return a text that identifies a data set by its images' file names and classes, wherever the files are stored."""
    digest = hashlib.sha256()
    for examples in data:
        names = [Path(examples.name_of(i)).name for i in range(len(examples))]
        digest.update(json.dumps([names, examples.labels.tolist()]).encode())
    return f"{len(data.train)} + {len(data.validation)} images, {digest.hexdigest()[:16]}"


def _name(model):
    return getattr(model, "name", None) if isinstance(model, keras.Model) else model and str(model)


def _settings(record):
    """Return the values of a record that must stay the same, as a dictionary with dotted names."""
    return {name: value for name, value in _flat(record).items() if name not in ("recipe.summary", "recipe.source")}


def _flat(values, prefix=""):
    """Return nested dictionaries as one dictionary with dotted names."""
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
