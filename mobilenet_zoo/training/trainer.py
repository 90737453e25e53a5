"""`train`: carries out a training run, from its arguments to the saved model and the report."""

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
    """Results of a training run.

    Attributes:
        folder: Folder of the run, with all of its files.
        model: Model with the weights of the best epoch (the averaged weights if the recipe averages them).
        history: List with one dictionary per epoch.
        best: Dictionary of the best epoch.
        class_names: Names of the classes, in the order of the model's outputs.
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
    """Train a model on images with a recipe, in a folder from which an interrupted run can resume.

    The folder contains `run.json` (the request, versions, the command), `recipe.yaml` (with every field),
    `checkpoints/`, `best/`, `log.csv` (one row per epoch) and `tensorboard/`. At the end, `model/` with the weights of
    the best epoch, as `save_pretrained` writes it, and `report.html` are added.

    A run that is killed and resumed ends with the same weights as an uninterrupted run. On a CPU with the same number
    of threads, they are bit-identical; TensorFlow also needs `TF_NUM_INTEROP_THREADS=1`.

    Args:
        data: An image folder (one sub-folder per class), a manifest, an `.npz` file, a Hugging Face dataset, `Examples`
            or `Data`; see `read_data`.
        model: A model name, a `.keras` file, a folder written by `save_pretrained`, a repository on the Hugging Face
            Hub, or a functional model of this library with one output per class; None for the model of the resumed
            run, or for "mobilenetv4_conv_small" in a new run.
        output: Folder of the run.
        recipe: A name from `list_recipes()`, a YAML file, a dictionary or a `Recipe`; None for the recipe of the
            resumed run, or for "finetune" in a new run.
        overrides: Fields that replace the recipe's, such as `{"optimizer.learning_rate": 1e-3}` or
            `["optimizer.learning_rate=1e-3"]`.
        weights: Weights that a named model starts from: "imagenet", a tag, or False for none. None uses the weights
            that `model` names, or else "imagenet" if the recipe first trains the head alone, or else none.
        validation: Validation data in any format that `data` accepts; None for the validation set that `data`
            contains, or else a fraction of `data`.
        validation_fraction: Fraction of each class for the validation set, if it is split from `data`.
        teacher: A teacher model, or a name or path as for `model`, whose predictions the model also learns; see
            `Distiller`. Alternatively, an `.npz` file of the teacher's predictions, written by `save_predictions` or by
            `mobilenet-zoo evaluate --predictions`; see `blend_targets`.
        resume: Whether to resume the run in the folder. If there is no run yet, a new one is started, so a job that is
            restarted repeatedly can always use the same command.
        checkpoint_seconds: Seconds between two checkpoints. A checkpoint is also saved on SIGTERM.
        keep: Number of latest checkpoints to keep.
        workers: Number of processes that read images; 0 for threads.
        damaged_limit: Maximum number of damaged images to skip; None for 1% of the images, but at least 10.
        devices: Number of devices of this host; see `open_cluster`. The devices of all hosts split the recipe's batch.
            Under PyTorch, several devices need one process each, which `launch` starts.
        hosts: Hosts of the run, as in `open_cluster`. All hosts need access to the run's folder.
        host_index: Index of this host in `hosts`, as in `open_cluster`.
        progress: Whether to show a progress bar.
        report: Whether to write `report.html` for the validation set at the end. With several hosts, JAX and TensorFlow
            write no report; run `mobilenet-zoo evaluate` to get one.

    Returns:
        A `Run`.

    Raises:
        ValueError: An argument is invalid, or the folder is in use or contains another run. Nothing is overwritten.
        NotFinite: The loss or a weight became NaN or infinite.
        Terminated: SIGTERM was received; the run is saved.

    Warns:
        MobileNetWarning: Damaged images were skipped, or images are in both the training and the validation set.
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
            # If reading the weights takes all processes, each of them saves the model; only the chief's copy is kept.
            path = run.folder if cluster.is_chief else Path(stack.enter_context(tempfile.TemporaryDirectory()))
            has_report = options.report and cluster.computes_alone
            _write_results(run, path, request, has_report, loop.pipelines[0].damaged)
            if not cluster.computes_alone:
                cluster.barrier()
        for pipeline, kind in zip(loop.pipelines, ("training", "validation"), strict=True):
            if pipeline.damaged:
                warn(skipped(pipeline.damaged, len(pipeline.examples), kind))
    return run


def _write_results(run, path, request, has_report, damaged):
    """Write the model and the report to `path`; the report also lists the `damaged` training images."""
    metrics = {key: value for key, value in run.best.items() if key.startswith("val_")}
    save_pretrained(run.model, path / run_folder.MODEL, class_names=run.class_names, metrics=metrics)
    if not has_report:
        return
    evaluation = evaluate(run.model, request.data.validation)
    facts = {"Run": str(run.folder), "Recipe": request.recipe.name, "Best epoch": str(run.best["epoch"])}
    if damaged or evaluation.damaged:
        facts["Damaged images skipped"] = (
            f"{len(damaged)} in the training set, {len(evaluation.damaged)} in the validation set"
        )
    overlays = heat_on_mistakes(run.model, evaluation)
    evaluation = dataclasses.replace(evaluation, damaged=(*damaged, *evaluation.damaged))
    write_report(path / run_folder.REPORT, evaluation, history=run.history, overlays=overlays, facts=facts)
