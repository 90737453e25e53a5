"""A training run: data, model, recipe and folder put together around `fit`."""

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mobilenet_common.errors import ArgumentError, MobileNetWarning, integer, number
from mobilenet_common.libraries import import_library
from mobilenet_common.notices import warn
from mobilenet_common.types import PathLike
from mobilenet_runtime.evaluation import predictions
from mobilenet_runtime.reading import skipped
from mobilenet_zoo.evaluation import evaluate, heat_on_mistakes, write_report
from mobilenet_zoo.finetuning import freeze_batch_norm
from mobilenet_zoo.model_preprocessing import preprocessing
from mobilenet_zoo.names import check_model
from mobilenet_zoo.pretrained import save_pretrained
from mobilenet_zoo.registry import check_weights_of
from mobilenet_zoo.training import folder as run_folder
from mobilenet_zoo.training.averaging import averaged_weights
from mobilenet_zoo.training.callbacks import Callbacks, Log, Position, Saving
from mobilenet_zoo.training.checkpoints import Checkpoints
from mobilenet_zoo.training.compiling import compile_model
from mobilenet_zoo.training.data import Data, Pipeline, read_data
from mobilenet_zoo.training.devices import open_cluster
from mobilenet_zoo.training.distillation import Distiller, blend_targets
from mobilenet_zoo.training.folder import RunFolder, check_same
from mobilenet_zoo.training.models import build, norms_restored, set_head_alone
from mobilenet_zoo.training.progress import ProgressBar
from mobilenet_zoo.training.recipes import load_recipe
from mobilenet_zoo.training.recipes.recipe import Distillation, Recipe
from mobilenet_zoo.training.state import make_variables, restore

DEFAULT_MODEL, DEFAULT_RECIPE = "mobilenetv4_conv_small", "finetune"


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
) -> "Run":
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
    checkpoint_seconds = number("checkpoint_seconds", checkpoint_seconds, 0, float("inf"))
    keep = integer("keep", keep, 1)
    _check_names(model, weights, recipe, overrides, Path(output) if resume else None)
    if not isinstance(data, Data):
        data = read_data(data, validation=validation, validation_fraction=validation_fraction)
    with open_cluster(devices, hosts, host_index) as cluster, contextlib.ExitStack() as stack:
        folder = stack.enter_context(RunFolder(output)) if cluster.is_chief else None
        before = cluster.broadcast_value(_before(folder, resume) if folder else None)
        resume, before = before is not None, before or {}
        recipe = load_recipe(before.get("recipe", DEFAULT_RECIPE) if recipe is None else recipe, overrides)
        if teacher is not None and recipe.distillation is None:
            recipe = dataclasses.replace(recipe, distillation=Distillation())
        model = before.get("model", DEFAULT_MODEL) if model is None else model
        weights = before.get("weights") if weights is None else weights
        teacher = before.get("teacher") if teacher is None else teacher
        if teacher is None and recipe.distillation is not None:
            raise ArgumentError(f"The recipe {recipe.name} learns from a teacher: name one (teacher=..., --teacher).")
        asked = {"model": _name(model), "weights": weights, "teacher": _name(teacher)}
        asked |= {"classes": list(data.train.class_names), "data": fingerprint(data), "recipe": recipe.as_dict()}
        if resume:
            check_same(output, _flat(before), _flat(asked))
        keras.utils.set_random_seed(recipe.seed)
        answers, teacher = _saved_answers(teacher, data.train, recipe)
        # A checkpoint brings the classifier too, so that a fresh one is nothing to warn of.
        is_restored = resume and bool(Checkpoints(Path(output) / run_folder.CHECKPOINTS, keep, writes=False).steps())
        with cluster.scope(), _fresh_classifier_ignored(is_restored):
            model = build(model, data.train.class_names, recipe, weights)
            teacher = None if teacher is None else build(teacher, data.train.class_names, None, None)
        pipelines = _pipelines(data, model, recipe, cluster, answers, workers, damaged_limit)
        if folder and not resume:
            folder.begin(asked, recipe)
        training = _Training(cluster, Path(output), folder, model, teacher, recipe, pipelines)
        run = training.run(resume, checkpoint_seconds, keep, progress)
        if cluster.is_chief or not cluster.computes_alone:
            # Where it takes all processes to read the model, the others write theirs to where nobody looks.
            path = run.folder if cluster.is_chief else Path(stack.enter_context(tempfile.TemporaryDirectory()))
            damaged = pipelines[0].damaged
            _keep(run, path, data.validation, recipe, report and cluster.computes_alone, damaged)
            if not cluster.computes_alone:
                cluster.barrier()
        for pipeline, kind in zip(pipelines, ("training", "validation"), strict=True):
            if pipeline.damaged:
                warn(skipped(pipeline.damaged, len(pipeline.examples), kind))
    return run


def _check_names(model, weights, recipe, overrides, resumed):
    """Raise the `ValueError` for a wrong name or field before any image is read.

    What the run in the folder `resumed` has is known later.
    """
    is_begun = resumed is not None and (resumed / run_folder.RUN).is_file()
    if recipe is not None or not is_begun:
        load_recipe(DEFAULT_RECIPE if recipe is None else recipe, overrides)
    if model is not None and not isinstance(model, keras.Model):
        check_model("model", model)
    if weights and (model is not None or not is_begun):
        check_weights_of(DEFAULT_MODEL if model is None else model, weights)


@contextlib.contextmanager
def _fresh_classifier_ignored(is_ignored):
    """Leave out the warning that a model's classifier is fresh."""
    with warnings.catch_warnings():
        if is_ignored:
            warnings.filterwarnings("ignore", ".*new and must be trained", MobileNetWarning)
        yield


def _before(folder, resume):
    """Return what was asked for when the run in a folder began; None for a run that begins."""
    if not folder.is_begun():
        return None
    if not resume:
        raise ArgumentError(
            f"{folder.path} has a run already: resume it (resume=True, --resume), or name another folder."
        )
    return folder.asked()


def _name(model):
    return getattr(model, "name", None) if isinstance(model, keras.Model) else model and str(model)


def _keep(run, path, examples, recipe, report, damaged):
    """Write the model and its report to a folder; the report lists the `damaged` images of training too."""
    metrics = {key: value for key, value in run.best.items() if key.startswith("val_")}
    save_pretrained(run.model, path / run_folder.MODEL, class_names=run.class_names, metrics=metrics)
    if not report:
        return
    found = evaluate(run.model, examples)
    facts = {"Run": str(run.folder), "Recipe": recipe.name, "Best epoch": str(run.best["epoch"])}
    if damaged or found.damaged:
        facts["Damaged images skipped"] = f"{len(damaged)} of training, {len(found.damaged)} of validation"
    overlays = heat_on_mistakes(run.model, found)
    found = dataclasses.replace(found, damaged=(*damaged, *found.damaged))
    write_report(path / run_folder.REPORT, found, history=run.history, overlays=overlays, facts=facts)


class _Training:
    """A run whose arguments are right, in one of its processes."""

    def __init__(self, cluster, path, folder, model, teacher, recipe, pipelines):
        self.cluster, self.path, self.folder, self.model, self.recipe = cluster, path, folder, model, recipe
        self.pipelines = self.pipeline, self.held_out = pipelines
        self.trained = model
        if teacher is not None:
            how = recipe.distillation
            with cluster.scope():
                self.trained = Distiller(model, teacher, how.temperature, how.weight)
        self.position = Position(self.pipeline.steps_per_epoch, recipe.batch_size)
        self.epochs = recipe.head_epochs + recipe.epochs

    def run(self, resume, seconds, keep, progress):
        chief = self.cluster.is_chief
        checkpoints = Checkpoints(self.path / run_folder.CHECKPOINTS, keep, writes=chief)
        best = Checkpoints(self.path / run_folder.BEST, 1, writes=chief)
        last = checkpoints.load() if resume and checkpoints.steps() else None
        if last is not None:
            self.position.step, self.position.history = last.step, list(last.facts["history"])
        saving = Saving(checkpoints, best, self.position, seconds, self.epochs, self.cluster)
        board = self._board() if chief else None
        callbacks = [Log(self.position, self.folder, self.pipeline, self.held_out, self._evaluate, board, saving)]
        bar = ProgressBar(self.position, self.epochs, self.pipeline) if progress and chief else None
        callbacks += [bar] * (bar is not None) + [saving]
        try:
            with norms_restored(self.model):
                for phase, (first, end) in enumerate(self._phases()):
                    if self.position.epoch < end:
                        self._fit_phase(phase, first, end, saving, last, callbacks)
                        last = None
            best.wait()
            self.cluster.barrier()
            found = best.load()
        finally:
            if bar is not None:
                bar.close()
            if board is not None:
                board.close()
            saving.close()
        restore(self.trained, found.arrays, ("model",))
        names = self.pipeline.examples.class_names
        return Run(self.path, self.model, self.position.history, found.facts["row"], names)

    def _board(self):
        return import_library("tensorboardX", "train", "Training").SummaryWriter(
            str(self.path / run_folder.BOARD), purge_step=self.position.step
        )

    def _phases(self):
        """Return the epochs of each phase: the head alone, if at all, and then everything."""
        head = self.recipe.head_epochs
        return [(0, head), (head, self.epochs)]

    def _fit_phase(self, phase, first, end, saving, last, callbacks):
        recipe, steps = self.recipe, self.position.steps_per_epoch
        set_head_alone(self.model, phase == 0)
        if recipe.model.freeze_batch_norm:
            freeze_batch_norm(self.model)  # in each phase: Keras's own batch norm thaws with the layer that it is in
        rate = recipe.head_learning_rate if phase == 0 else None
        with self.cluster.scope():
            compile_model(self.trained, recipe, steps, epochs=end - first, learning_rate=rate)
            make_variables(self.trained, len(self.pipeline.examples.class_names), recipe.balance == "weights")
        saving.begin(self.trained, phase, last)
        self.cluster.prepare(self.trained)
        while (epoch := self.position.epoch) < end:
            # An epoch that was interrupted is ended first: it has fewer steps than the others.
            within = self.position.is_within_an_epoch()
            self.trained.fit(
                self.cluster.feed(self.pipeline.batches(self.position.step)),
                initial_epoch=epoch,
                epochs=epoch + 1 if within else end,
                steps_per_epoch=steps - self.position.step % steps,
                callbacks=Callbacks(callbacks, add_history=True, model=self.trained),
                shuffle=False,  # the pipeline has done that
                verbose=0,
            )

    def _evaluate(self):
        """Return `{metric: value}` on the validation images, with the average of the weights where there is one."""
        # Keras's own validation keeps an iterator from epoch to epoch, which data whose length it can't tell exhaust.
        with averaged_weights(self.trained):
            batches = self.cluster.feed(self.held_out.batches())
            return self.trained.evaluate(batches, steps=self.held_out.steps_per_epoch, verbose=0, return_dict=True)


def _saved_answers(teacher, examples, recipe):
    """Return targets that hold a teacher's saved predictions, or None; and the teacher that is still to be asked."""
    if not isinstance(teacher, (str, os.PathLike)) or Path(teacher).suffix != predictions.ENDING:
        return None, teacher
    names = [examples.name_of(i) for i in range(len(examples))]
    answers = predictions.read_predictions(teacher, names, examples.class_names)
    labels = np.eye(len(examples.class_names), dtype="float32")[examples.labels]
    return blend_targets(labels, answers, recipe.distillation.weight, recipe.distillation.temperature), None


def _pipelines(data, model, recipe, cluster, soft_targets, workers, damaged_limit):
    """Return the pipelines for training and for evaluation."""
    transform = preprocessing(model)
    cluster.share(recipe.batch_size)  # raises where it can't be divided
    common = {"batch_size": recipe.batch_size, "workers": workers, "damaged_limit": damaged_limit}
    common |= {"process_index": cluster.process_index, "process_count": cluster.process_count}
    augmentation = dataclasses.asdict(recipe.augmentation)
    mixing = recipe.mixing and dataclasses.asdict(recipe.mixing)
    settings = {"augmentation": augmentation, "mixing": mixing, "balance": recipe.balance, "seed": recipe.seed}
    settings["soft_targets"] = soft_targets
    # The last batch too has equal parts for all devices: of n - 1 images at most that takes none.
    whole = len(data.validation) - len(data.validation) % cluster.devices
    return (
        Pipeline(data.train, transform, training=True, **settings, **common),
        Pipeline(data.validation.subset(range(whole)), transform, training=False, **common),
    )


def fingerprint(data):
    """Return what tells data sets apart, wherever they lie: the images' names and classes, in their order."""
    digest = hashlib.sha256()
    for examples in data:
        names = [Path(examples.name_of(i)).name for i in range(len(examples))]
        digest.update(json.dumps([names, examples.labels.tolist()]).encode())
    return f"{len(data.train)} + {len(data.validation)} images, {digest.hexdigest()[:16]}"


def _flat(values, prefix=""):
    """Return nested dictionaries as one, by dotted names."""
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
