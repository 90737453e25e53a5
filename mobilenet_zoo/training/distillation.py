"""A student that learns from a teacher: its outputs as they are asked for, or as they were saved."""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from mobilenet_common.errors import ArgumentError, number
from mobilenet_common.nesting import last_layer
from mobilenet_common.types import Tensor
from mobilenet_runtime.transform import normalize
from mobilenet_zoo.model_preprocessing import preprocessing

_LEAST = 1e-30  # a probability below it counts as it; its logarithm still has a gradient


class Distiller(keras.Model):
    """A student in `fit` whose loss has a teacher's predictions in it (Hinton et al., 2015, section 2).

    The loss is `(1 - weight) · H(y, p) + weight · T² · KL(teacher at T ‖ student at T)` with the compiled loss as H and
    the temperature T. The factor T² keeps the gradient's size as T grows. Evaluation has the compiled loss alone.

    The teacher answers as in inference, and isn't part of the model: its weights are not in `variables`, so neither
    trained nor saved nor averaged. It gets the student's images, normalized and resized as it wants them. Integers
    are pixels in 0..255, which are normalized for the student first.

    Args:
        student: A model of this library; it is trained in place, and is what to keep afterwards.
        teacher: A model with as many classes: of this library, or any with the student's inputs.
        temperature: Positive.
        weight: Of the teacher, in (0, 1]; the labels have the rest.

    Raises:
        ValueError: An argument is out of its range, or the two don't fit.
    """

    def __init__(
        self, student: keras.Model, teacher: keras.Model, temperature: float = 1.0, weight: float = 0.5, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.temperature = number("temperature", temperature, 0, float("inf"), low_open=True, high_open=True)
        self.weight = number("weight", weight, 0, 1, low_open=True)
        if student.output_shape[-1] != teacher.output_shape[-1]:
            raise ArgumentError(
                f"teacher={teacher.name!r} is not allowed: it has {teacher.output_shape[-1]} classes, the student "
                f"{student.output_shape[-1]}."
            )
        if not _is_softmax(student):
            raise ArgumentError(
                f"student={student.name!r} is not allowed: it must end in softmax, as models do by default."
            )
        self.student = student
        floats = self._floats = _floats_for(student)
        prepare, probabilities = _images_for(student, teacher), _is_softmax(teacher)

        def teach(x):  # a function, since Keras would track the model, and with it its weights
            answers = teacher(prepare(floats(x)), training=False)
            return ops.stop_gradient(_log(answers) if probabilities else answers)

        self._teach = teach
        self.built = True

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return self.student(self._floats(x), training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool | None = True
    ) -> Tensor:
        if not training:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        losses = distillation_loss(self._teach(x), _log(y_pred), self.temperature)
        if sample_weight is not None:
            losses = losses * ops.cast(sample_weight, losses.dtype)
        soft = self.weight * ops.mean(losses)
        hard = super().compute_loss(x, y, y_pred, sample_weight, training)
        return soft + (1.0 - self.weight) * hard


def distillation_loss(teacher, student, temperature=1.0):
    """Return `T² · KL(teacher ‖ student)` of each example, `(batch,)`, from logits or logarithms of probabilities.

    Args:
        teacher: `(batch, classes)`; a constant added to a row changes nothing.
        student: As the teacher's.
        temperature: Divides both.
    """
    teacher = ops.log_softmax(ops.cast(teacher, "float32") / temperature)
    student = ops.log_softmax(ops.cast(student, "float32") / temperature)
    return temperature**2 * ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)


def blend_targets(targets: Any, predictions: Any, weight: float, temperature: float = 1.0) -> Any:
    """Return targets that hold saved predictions of a teacher, for training without the teacher.

    With cross-entropy as loss and temperature 1 their gradient is that of a `Distiller`. Saved predictions are to whole
    images: train on the same crop of them, without mixing.

    Args:
        targets: One-hot or mixed, `(n, classes)`.
        predictions: Probabilities of the teacher for the same examples, in the same order.
        weight: Of the predictions, in [0, 1].
        temperature: Positive; above 1 evens the predictions out.

    Returns:
        float32 `(n, classes)`; each row sums to 1.

    Raises:
        ValueError: The shapes differ, or an argument is out of its range.
    """
    targets, predictions = np.asarray(targets, "float32"), np.asarray(predictions, "float64")
    weight = number("weight", weight, 0, 1)
    temperature = number("temperature", temperature, 0, float("inf"), low_open=True, high_open=True)
    if targets.shape != predictions.shape or targets.ndim != 2:
        raise ArgumentError(
            f"predictions of shape {predictions.shape} are not allowed: the targets have {targets.shape}, "
            "a row an example and a column a class."
        )
    softened = np.maximum(predictions, _LEAST) ** (1.0 / temperature)
    softened /= softened.sum(axis=1, keepdims=True)
    return ((1.0 - weight) * targets + weight * softened).astype("float32")


def _log(probabilities):
    return ops.log(ops.maximum(ops.cast(probabilities, "float32"), _LEAST))


def _is_softmax(model):
    return getattr(last_layer(model), "activation", None) is keras.activations.softmax


def _floats_for(student):
    """Return a function that normalizes integers as the student takes its images, and leaves floats as they are."""
    try:
        transform = preprocessing(student)
    except ArgumentError:  # a model from elsewhere, which takes what it takes
        return lambda x: x
    axes = (-1,) if transform.data_format == "channels_last" else (-1, 1, 1)

    def floats(x):
        if "int" not in keras.backend.standardize_dtype(x.dtype):
            return x
        x = ops.cast(x, "float32")
        if transform.mean is None:
            return x
        mean, std = (
            ops.reshape(ops.convert_to_tensor(values, "float32"), axes) for values in (transform.mean, transform.std)
        )
        return normalize(x, mean, std)

    return floats


def _images_for(student, teacher):
    """Return a function that makes the student's images the teacher's: other mean and spread, size, channels, axes."""
    try:
        ours, theirs = preprocessing(student), preprocessing(teacher)
    except ArgumentError:  # a model from elsewhere, which takes what the student takes
        if student.input_shape[1:] != teacher.input_shape[1:]:
            raise ArgumentError(
                f"teacher={teacher.name!r} is not allowed: it takes {teacher.input_shape[1:]}, the student "
                f"{student.input_shape[1:]}, and only models of this library say how to convert."
            ) from None
        return lambda x: x
    if ours.channels != theirs.channels and 1 not in (ours.channels, theirs.channels):
        raise ArgumentError(
            f"teacher={teacher.name!r} is not allowed: it takes {theirs.channels} channels, not {ours.channels}."
        )
    if dataclasses.replace(ours, crop=theirs.crop, interpolation=theirs.interpolation) == theirs:
        return lambda x: x
    # pixels / 255 = x · std + mean, or x / 255 where the model normalizes inside; the teacher's the other way round
    mean, std = (0.0, 1 / 255) if ours.mean is None else _arrays(ours.mean, ours.std)
    their_mean, their_std = (0.0, 1 / 255) if theirs.mean is None else _arrays(theirs.mean, theirs.std)
    first = {"channels_first": (0, 2, 3, 1), "channels_last": (0, 1, 2, 3)}[ours.data_format]

    def prepare(x):
        x = ops.transpose(ops.cast(x, "float32"), first)
        x = x * ops.convert_to_tensor(std, "float32") + ops.convert_to_tensor(mean, "float32")
        if theirs.channels > ours.channels:
            x = ops.repeat(x, theirs.channels, axis=-1)
        elif theirs.channels < ours.channels:
            x = ops.mean(x, axis=-1, keepdims=True)
        if tuple(x.shape[1:3]) != theirs.size:
            x = ops.image.resize(x, theirs.size, interpolation="bilinear", antialias=True, data_format="channels_last")
        x = (x - ops.convert_to_tensor(their_mean, "float32")) / ops.convert_to_tensor(their_std, "float32")
        return x if theirs.data_format == "channels_last" else ops.transpose(x, (0, 3, 1, 2))

    return prepare


def _arrays(*values):
    return [np.asarray(value, "float32") for value in values]
