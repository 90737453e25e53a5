"""The training loop of a run: builds the model and the pipelines of a request, and calls `fit` for each phase."""

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
    """The training of a run, as carried out by one of its processes.

    Args:
        request: A `RunRequest`.
        cluster: `Cluster` of this process.

    Attributes:
        model: The model; it has the best weights after `run`.
        pipelines: The training `Pipeline` and the validation `Pipeline`.

    Raises:
        ValueError: The model, the teacher or the devices don't match the rest of the request.
    """

    def __init__(self, request: RunRequest, cluster: Cluster):
        self.cluster, self.request, self.recipe, self.path = cluster, request, request.recipe, request.options.output
        keras.utils.set_random_seed(self.recipe.seed)
        soft_targets, teacher = _load_soft_targets(request)
        # A checkpoint contains the classifier's weights, so don't warn that the classifier is new.
        is_restored = request.is_resumed and bool(self._checkpoints(writes=False).steps())
        with cluster.scope(), _ignore_new_classifier_warning(is_restored):
            self.model = self.trained = build(request.model, request.class_names, self.recipe, request.weights)
            teacher = None if teacher is None else build(teacher, request.class_names, None, None)
        self.pipelines = self.pipeline, self.validation_pipeline = _pipelines(
            request, self.model, cluster, soft_targets
        )
        distillation = self.recipe.distillation
        if teacher is not None and distillation is not None:
            with cluster.scope():
                self.trained = Distiller(self.model, teacher, distillation.temperature, distillation.weight)
        self.position = Position(self.pipeline.steps_per_epoch, self.recipe.batch_size)
        self.epochs = self.recipe.head_epochs + self.recipe.epochs

    def run(self, folder: RunFolder | None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Train to the end, starting from the latest checkpoint if the run is resumed.

        Args:
            folder: `RunFolder` in the process that writes; None in the others.

        Returns:
            The history, one dictionary per epoch, and the dictionary of the best epoch.
        """
        options, chief = self.request.options, self.cluster.is_chief
        checkpoints = self._checkpoints(writes=chief)
        best = Checkpoints(self.path / run_folder.BEST, 1, writes=chief)
        checkpoint = checkpoints.load() if self.request.is_resumed and checkpoints.steps() else None
        if checkpoint is not None:
            self.position.step, self.position.history = checkpoint.step, list(checkpoint.facts["history"])
        saving = Saving(checkpoints, best, self.position, options.checkpoint_seconds, self.epochs, self.cluster)
        board = self._board() if chief else None
        callbacks = [Log(self.position, folder, self.pipeline, self.validation_pipeline, self._evaluate, board, saving)]
        bar = ProgressBar(self.position, self.epochs, self.pipeline) if options.progress and chief else None
        callbacks += [bar] * (bar is not None) + [saving]
        try:
            with norms_restored(self.model):
                for phase, (first_epoch, end_epoch) in enumerate(self._phases()):
                    if self.position.epoch < end_epoch:
                        self._fit_phase(phase, first_epoch, end_epoch, saving, checkpoint, callbacks)
                        checkpoint = None
            best.wait()
            self.cluster.barrier()
            best_checkpoint = best.load()
        finally:
            if bar is not None:
                bar.close()
            if board is not None:
                board.close()
            saving.close()
        restore(self.trained, best_checkpoint.arrays, ("model",))
        return self.position.history, best_checkpoint.facts["row"]

    def _checkpoints(self, writes):
        return Checkpoints(self.path / run_folder.CHECKPOINTS, self.request.options.keep, writes=writes)

    def _board(self):
        return import_library("tensorboardX", "train", "Training").SummaryWriter(
            str(self.path / run_folder.BOARD), purge_step=self.position.step
        )

    def _phases(self):
        """Return the range of epochs of each phase: first the head alone (possibly 0 epochs), then all layers."""
        head = self.recipe.head_epochs
        return [(0, head), (head, self.epochs)]

    def _fit_phase(self, phase, first_epoch, end_epoch, saving, checkpoint, callbacks):
        recipe, steps = self.recipe, self.position.steps_per_epoch
        set_head_alone(self.model, phase == 0)
        if recipe.model.freeze_batch_norm:
            freeze_batch_norm(self.model)  # In each phase: changing `trainable` also unfreezes Keras's own batch norm.
        head_rate = recipe.head_learning_rate if phase == 0 else None
        with self.cluster.scope():
            compile_model(self.trained, recipe, steps, epochs=end_epoch - first_epoch, learning_rate=head_rate)
            make_variables(self.trained, len(self.pipeline.examples.class_names), recipe.balance == "weights")
        saving.begin(self.trained, phase, checkpoint)
        self.cluster.prepare(self.trained)
        while (epoch := self.position.epoch) < end_epoch:
            # Finish an interrupted epoch by itself: fewer steps are left in it than in the following epochs.
            is_interrupted = self.position.is_within_an_epoch()
            self.trained.fit(
                self.cluster.feed(self.pipeline.batches(self.position.step)),
                initial_epoch=epoch,
                epochs=epoch + 1 if is_interrupted else end_epoch,
                steps_per_epoch=steps - self.position.step % steps,
                callbacks=Callbacks(callbacks, add_history=True, model=self.trained),
                shuffle=False,  # The pipeline has shuffled already.
                verbose=0,
            )

    def _evaluate(self):
        """Return `{metric: value}` on the validation set, with the averaged weights if the recipe averages them."""
        # Don't pass validation data to `fit`: Keras keeps one iterator for all epochs, and it would run out.
        with averaged_weights(self.trained):
            batches = self.cluster.feed(self.validation_pipeline.batches())
            return self.trained.evaluate(
                batches, steps=self.validation_pipeline.steps_per_epoch, verbose=0, return_dict=True
            )


@contextlib.contextmanager
def _ignore_new_classifier_warning(is_ignored):
    """Ignore the warning that the model has a new classifier, if `is_ignored`."""
    with warnings.catch_warnings():
        if is_ignored:
            warnings.filterwarnings("ignore", ".*new and must be trained", MobileNetWarning)
        yield


def _load_soft_targets(request):
    """Return `(soft_targets, teacher)`; at most one of them is not None, depending on the kind of teacher."""
    teacher, examples, distillation = request.teacher, request.data.train, request.recipe.distillation
    if not isinstance(teacher, (str, os.PathLike)) or Path(teacher).suffix != predictions.ENDING:
        return None, teacher
    names = [examples.name_of(i) for i in range(len(examples))]
    teacher_predictions = predictions.read_predictions(teacher, names, examples.class_names)
    labels = np.eye(len(examples.class_names), dtype="float32")[examples.labels]
    return blend_targets(labels, teacher_predictions, distillation.weight, distillation.temperature), None


def _pipelines(request, model, cluster, soft_targets):
    """Return the training and the validation pipeline."""
    data, recipe, options = request.data, request.recipe, request.options
    transform = preprocessing(model)
    cluster.share(recipe.batch_size)  # Raises an error if the devices can't split the batch equally.
    shared_settings = {
        "batch_size": recipe.batch_size,
        "workers": options.workers,
        "damaged_limit": options.damaged_limit,
    }
    shared_settings |= {"process_index": cluster.process_index, "process_count": cluster.process_count}
    augmentation = dataclasses.asdict(recipe.augmentation)
    mixing = recipe.mixing and dataclasses.asdict(recipe.mixing)
    settings = {"augmentation": augmentation, "mixing": mixing, "balance": recipe.balance, "seed": recipe.seed}
    settings["soft_targets"] = soft_targets
    # The last validation batch must be split equally too, so drop up to `devices - 1` images.
    validation_size = len(data.validation) - len(data.validation) % cluster.devices
    return (
        Pipeline(data.train, transform, training=True, **settings, **shared_settings),
        Pipeline(data.validation.subset(range(validation_size)), transform, training=False, **shared_settings),
    )
