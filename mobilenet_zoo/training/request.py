"""What a run is asked to do: the arguments of `train`, what a resumed run recorded and the recipe, resolved."""

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
    """How a run is carried out: what may change whenever it is resumed.

    Attributes:
        output: The run's folder.
        checkpoint_seconds: The time from one checkpoint to the next.
        keep: How many checkpoints stay.
        workers: Processes that read images; 0 for threads.
        damaged_limit: How many damaged images are skipped; None for 1%, at least 10.
        progress: Whether a progress bar is shown.
        report: Whether `report.html` is written at the end.

    Raises:
        ValueError: `checkpoint_seconds` or `keep` is out of its range.
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
    """What a run is asked to do, with nothing left open; the run is built from it alone.

    Attributes:
        data: The training and validation images.
        model: A model, or the name or path that `build` takes.
        weights: The weights that a named model starts from; None where the recipe decides, False for none.
        teacher: A model, the name or path that `build` takes, or an `.npz` of saved predictions; None where the recipe
            has no distillation.
        recipe: The recipe, with the overrides applied.
        is_resumed: Whether the run was begun before.
        options: How the run is carried out.
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
        """Return what `run.json` keeps of the request, as JSON holds it: a resumed run must ask for the same."""
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
    """Raise the `ValueError` for a wrong name or field before any image is read.

    Args:
        model: As in `train`.
        weights: As in `train`.
        recipe: As in `train`.
        overrides: As in `train`.
        is_resumed: Whether a run's record will say what is None here.
    """
    if recipe is not None or not is_resumed:
        load_recipe(DEFAULT_RECIPE if recipe is None else recipe, overrides)
    if model is not None and not isinstance(model, keras.Model):
        check_model("model", model)
    if weights and (model is not None or not is_resumed):
        check_weights_of(DEFAULT_MODEL if model is None else model, weights)


def read_record(folder: RunFolder, resume: bool) -> dict[str, Any] | None:
    """Return the record of the run in a folder, or None where a run begins.

    Raises:
        ValueError: There is a run, and it is not to be resumed.
    """
    if not folder.is_begun():
        return None
    if not resume:
        raise ArgumentError(
            f"{folder.path} has a run already: resume it (resume=True, --resume), or name another folder."
        )
    return folder.asked()


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
    """Return the request: each argument that is None comes from the record, and without one from the defaults.

    Args:
        data: The training and validation images.
        options: How the run is carried out.
        recorded: What `RunRequest.record` returned when the run began; None for a run that begins.
        model: As in `train`.
        weights: As in `train`.
        teacher: As in `train`.
        recipe: As in `train`.
        overrides: As in `train`.

    Raises:
        ValueError: The recipe is wrong or lacks its teacher, or the request differs from the record.
    """
    before = {} if recorded is None else recorded
    recipe = load_recipe(before.get("recipe", DEFAULT_RECIPE) if recipe is None else recipe, overrides)
    if teacher is not None and recipe.distillation is None:
        recipe = dataclasses.replace(recipe, distillation=Distillation())
    teacher = before.get("teacher") if teacher is None else teacher
    if teacher is None and recipe.distillation is not None:
        raise ArgumentError(f"The recipe {recipe.name} learns from a teacher: name one (teacher=..., --teacher).")
    request = RunRequest(
        data=data,
        model=before.get("model", DEFAULT_MODEL) if model is None else model,
        weights=before.get("weights") if weights is None else weights,
        teacher=teacher,
        recipe=recipe,
        is_resumed=recorded is not None,
        options=options,
    )
    if recorded is not None:
        check_same(options.output, _flat(recorded), _flat(request.record()))
    return request


def fingerprint(data: Data) -> str:
    """Return what tells data sets apart, wherever they lie: the images' names and classes, in their order."""
    digest = hashlib.sha256()
    for examples in data:
        names = [Path(examples.name_of(i)).name for i in range(len(examples))]
        digest.update(json.dumps([names, examples.labels.tolist()]).encode())
    return f"{len(data.train)} + {len(data.validation)} images, {digest.hexdigest()[:16]}"


def _name(model):
    return getattr(model, "name", None) if isinstance(model, keras.Model) else model and str(model)


def _flat(values, prefix=""):
    """Return nested dictionaries as one, by dotted names."""
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
