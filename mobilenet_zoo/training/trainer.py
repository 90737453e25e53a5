"""`train`: a run from its arguments to its results."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from mobilenet_common.notices import warn
from mobilenet_common.types import PathLike
from mobilenet_runtime.reading import skipped
from mobilenet_zoo.evaluation import evaluate, heat_on_mistakes, write_report
from mobilenet_zoo.pretrained import save_pretrained
from mobilenet_zoo.training import folder as run_folder
from mobilenet_zoo.training.data import Data, read_data
from mobilenet_zoo.training.devices import open_cluster
from mobilenet_zoo.training.folder import RunFolder
from mobilenet_zoo.training.loop import TrainingLoop
from mobilenet_zoo.training.recipes.recipe import Recipe
from mobilenet_zoo.training.request import RunOptions, check_names, read_record, resolve_request


@dataclasses.dataclass(frozen=True)
class Run:
    """What came out of a run.

    Attributes:
        folder: Where everything is.
        model: With the best weights (averages, where the recipe has some).
        history: A dictionary for each epoch.
        best: That of the best epoch.
        class_names: In the order of the model's outputs.
    """

    folder: Path
    model: keras.Model
    history: list
    best: dict
    class_names: tuple


def train(
    data: Any,
    model: keras.Model | PathLike | None = None,
    output: PathLike = "run",
    *,
    recipe: Recipe | PathLike | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | Iterable[str] | None = None,
    weights: str | bool | None = None,
    validation: Any = None,
    validation_fraction: float = 0.2,
    teacher: keras.Model | PathLike | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    keep: int = 3,
    workers: int = 0,
    damaged_limit: int | None = None,
    devices: int | None = 1,
    hosts: str | Sequence[str] | None = None,
    host_index: int | None = None,
    progress: bool = True,
    report: bool = True,
) -> Run:
    """Train a model on images, as a recipe says, in a folder from which an interrupted run resumes.

    The folder holds `run.json` (what was asked, versions, the command), `recipe.yaml` (resolved), `checkpoints/`,
    `best/`, `log.csv` (a row an epoch), `tensorboard/`, and in the end `model/`, as `save_pretrained` writes it, with
    the best epoch's weights, and `report.html`.

    A run that is killed and resumed ends with the weights that it would have had: bit for bit on a CPU with as many
    threads, under TensorFlow with `TF_NUM_INTEROP_THREADS=1`.

    Args:
        data: A folder of class folders, a manifest, an `.npz`, a Hugging Face dataset, `Examples` or `Data`; see
            `read_data`.
        model: A name, a `.keras` file, a folder of `save_pretrained`, a repository, or a functional model of this
            library with a class for each of the data's; None for V4 conv_small, or what a resumed run trains.
        output: The run's folder.
        recipe: A name of `list_recipes()`, a YAML file, a dictionary or a `Recipe`; None for "finetune", or the
            resumed run's.
        overrides: `{"optimizer.learning_rate": 1e-3}`: fields that differ from the recipe.
        weights: That a named model starts from: "imagenet", a tag, or False for none; None for "imagenet" where the
            recipe begins with the head alone.
        validation: More data, held out; None for what `data` brings, or a fraction of it.
        validation_fraction: That share, of each class.
        teacher: A model, or a name as for `model`, whose predictions are learned too; see `Distiller`. Or the `.npz` of
            its outputs that `save_predictions` (`mobilenet-zoo evaluate --predictions`) wrote; see `blend_targets`.
        resume: Whether to resume the run in the folder; where there is none one begins, so that a job which is
            started again and again needs one command.
        checkpoint_seconds: From one checkpoint to the next; one is also written when SIGTERM comes.
        keep: How many checkpoints stay.
        workers: Processes that read images; 0 for threads.
        damaged_limit: How many damaged images are skipped; None for 1%, at least 10.
        devices: Of this host; see `open_cluster`. The recipe's batch is shared among all devices of all hosts. Under
            PyTorch several need a process each, which `launch` starts.
        hosts: As `open_cluster`; all of them see the run's folder.
        host_index: As `open_cluster`.
        progress: Whether a bar is shown.
        report: Whether `report.html` is written in the end, from the validation images. Several hosts under JAX or
            TensorFlow write none: `mobilenet-zoo evaluate` does.

    Returns:
        A `Run`.

    Raises:
        ValueError: An argument is wrong, the folder has another run, or is in use; nothing is overwritten.
        NotFinite: The loss became NaN or infinity.
        Terminated: SIGTERM came, and the run is saved.

    Warns:
        MobileNetWarning: Damaged images were skipped, or images are in both training and validation data.
    """
    options = RunOptions(
        output=Path(output),
        checkpoint_seconds=checkpoint_seconds,
        keep=keep,
        workers=workers,
        damaged_limit=damaged_limit,
        progress=progress,
        report=report,
    )
    check_names(model, weights, recipe, overrides, resume and (options.output / run_folder.RUN).is_file())
    if not isinstance(data, Data):
        data = read_data(data, validation=validation, validation_fraction=validation_fraction)
    with open_cluster(devices, hosts, host_index) as cluster, contextlib.ExitStack() as stack:
        folder = stack.enter_context(RunFolder(output)) if cluster.is_chief else None
        recorded = cluster.broadcast_value(read_record(folder, resume) if folder else None)
        request = resolve_request(
            data,
            options,
            recorded,
            model=model,
            weights=weights,
            teacher=teacher,
            recipe=recipe,
            overrides=overrides,
        )
        loop = TrainingLoop(request, cluster)
        if folder and not request.is_resumed:
            folder.begin(request.record(), request.recipe)
        history, best = loop.run(folder)
        run = Run(options.output, loop.model, history, best, request.class_names)
        if cluster.is_chief or not cluster.computes_alone:
            # Where it takes all processes to read the model, the others write theirs to where nobody looks.
            path = run.folder if cluster.is_chief else Path(stack.enter_context(tempfile.TemporaryDirectory()))
            has_report = options.report and cluster.computes_alone
            _keep(run, path, request, has_report, loop.pipelines[0].damaged)
            if not cluster.computes_alone:
                cluster.barrier()
        for pipeline, kind in zip(loop.pipelines, ("training", "validation"), strict=True):
            if pipeline.damaged:
                warn(skipped(pipeline.damaged, len(pipeline.examples), kind))
    return run


def _keep(run, path, request, has_report, damaged):
    """Write the model and its report to a folder; the report lists the `damaged` images of training too."""
    metrics = {key: value for key, value in run.best.items() if key.startswith("val_")}
    save_pretrained(run.model, path / run_folder.MODEL, class_names=run.class_names, metrics=metrics)
    if not has_report:
        return
    found = evaluate(run.model, request.data.validation)
    facts = {"Run": str(run.folder), "Recipe": request.recipe.name, "Best epoch": str(run.best["epoch"])}
    if damaged or found.damaged:
        facts["Damaged images skipped"] = f"{len(damaged)} of training, {len(found.damaged)} of validation"
    overlays = heat_on_mistakes(run.model, found)
    found = dataclasses.replace(found, damaged=(*damaged, *found.damaged))
    write_report(path / run_folder.REPORT, found, history=run.history, overlays=overlays, facts=facts)
