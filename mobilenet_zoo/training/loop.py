"""The training loop of a run: models and pipelines built from a request, and `fit` for each phase."""

import contextlib
import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mobilenet_common.errors import MobileNetWarning
from mobilenet_common.libraries import import_library
from mobilenet_runtime.evaluation import predictions
from mobilenet_zoo.finetuning import freeze_batch_norm
from mobilenet_zoo.model_preprocessing import preprocessing
from mobilenet_zoo.training import folder as run_folder
from mobilenet_zoo.training.averaging import averaged_weights
from mobilenet_zoo.training.callbacks import Callbacks, Log, Position, Saving
from mobilenet_zoo.training.checkpoints import Checkpoints
from mobilenet_zoo.training.compiling import compile_model
from mobilenet_zoo.training.data import Pipeline
from mobilenet_zoo.training.devices.cluster import Cluster
from mobilenet_zoo.training.distillation import Distiller, blend_targets
from mobilenet_zoo.training.folder import RunFolder
from mobilenet_zoo.training.models import build, norms_restored, set_head_alone
from mobilenet_zoo.training.progress import ProgressBar
from mobilenet_zoo.training.request import RunRequest
from mobilenet_zoo.training.state import make_variables, restore


class TrainingLoop:
    """The training of a run in one of its processes.

    Args:
        request: A `RunRequest`.
        cluster: The `Cluster` of the process.

    Attributes:
        model: The model; after `run` it has the best weights.
        pipelines: For training and for evaluation.

    Raises:
        ValueError: The model, the teacher or the devices don't fit the rest of the request.
    """

    def __init__(self, request: RunRequest, cluster: Cluster):
        self.cluster, self.request, self.recipe, self.path = cluster, request, request.recipe, request.options.output
        keras.utils.set_random_seed(self.recipe.seed)
        soft_targets, teacher = _saved_answers(request)
        # A checkpoint brings the classifier too, so that a fresh one is nothing to warn of.
        is_restored = request.is_resumed and bool(self._checkpoints(writes=False).steps())
        with cluster.scope(), _fresh_classifier_ignored(is_restored):
            self.model = self.trained = build(request.model, request.class_names, self.recipe, request.weights)
            teacher = None if teacher is None else build(teacher, request.class_names, None, None)
        self.pipelines = self.pipeline, self.held_out = _pipelines(request, self.model, cluster, soft_targets)
        how = self.recipe.distillation
        if teacher is not None and how is not None:
            with cluster.scope():
                self.trained = Distiller(self.model, teacher, how.temperature, how.weight)
        self.position = Position(self.pipeline.steps_per_epoch, self.recipe.batch_size)
        self.epochs = self.recipe.head_epochs + self.recipe.epochs

    def run(self, folder: RunFolder | None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Train to the end, from the last checkpoint where the run is resumed.

        Args:
            folder: Of the run, in the process that writes; None in the others.

        Returns:
            A dictionary for each epoch, and that of the best epoch.
        """
        options, chief = self.request.options, self.cluster.is_chief
        checkpoints = self._checkpoints(writes=chief)
        best = Checkpoints(self.path / run_folder.BEST, 1, writes=chief)
        last = checkpoints.load() if self.request.is_resumed and checkpoints.steps() else None
        if last is not None:
            self.position.step, self.position.history = last.step, list(last.facts["history"])
        saving = Saving(checkpoints, best, self.position, options.checkpoint_seconds, self.epochs, self.cluster)
        board = self._board() if chief else None
        callbacks = [Log(self.position, folder, self.pipeline, self.held_out, self._evaluate, board, saving)]
        bar = ProgressBar(self.position, self.epochs, self.pipeline) if options.progress and chief else None
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
        return self.position.history, found.facts["row"]

    def _checkpoints(self, writes):
        return Checkpoints(self.path / run_folder.CHECKPOINTS, self.request.options.keep, writes=writes)

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


@contextlib.contextmanager
def _fresh_classifier_ignored(is_ignored):
    """Leave out the warning that a model's classifier is fresh."""
    with warnings.catch_warnings():
        if is_ignored:
            warnings.filterwarnings("ignore", ".*new and must be trained", MobileNetWarning)
        yield


def _saved_answers(request):
    """Return targets that hold a teacher's saved predictions, or None; and the teacher that is still to be asked."""
    teacher, examples, how = request.teacher, request.data.train, request.recipe.distillation
    if not isinstance(teacher, (str, os.PathLike)) or Path(teacher).suffix != predictions.ENDING:
        return None, teacher
    names = [examples.name_of(i) for i in range(len(examples))]
    answers = predictions.read_predictions(teacher, names, examples.class_names)
    labels = np.eye(len(examples.class_names), dtype="float32")[examples.labels]
    return blend_targets(labels, answers, how.weight, how.temperature), None


def _pipelines(request, model, cluster, soft_targets):
    """Return the pipelines for training and for evaluation."""
    data, recipe, options = request.data, request.recipe, request.options
    transform = preprocessing(model)
    cluster.share(recipe.batch_size)  # raises where it can't be divided
    common = {"batch_size": recipe.batch_size, "workers": options.workers, "damaged_limit": options.damaged_limit}
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
