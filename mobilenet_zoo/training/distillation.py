"""Knowledge distillation: a student learns from a teacher model, or from a teacher's saved predictions."""

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

_MIN_PROBABILITY = 1e-30  # Smaller probabilities are raised to this, so that their logarithms and gradients are finite.


class Distiller(keras.Model):
    """Model that trains a student with a teacher's predictions in its loss (Hinton et al., 2015, section 2).

    The loss is `(1 - weight) · H(y, p) + weight · T² · KL(teacher at T ‖ student at T)`, where H is the compiled loss
    and T is the temperature. The factor T² keeps the scale of the gradient as T grows. Evaluation uses only the
    compiled loss.

    The teacher runs in inference mode and isn't tracked as part of the model: its weights are not in `variables`, so
    they are neither trained nor saved nor averaged. It gets the student's images, normalized and resized to its own
    requirements. Integer images are pixels in 0..255, which are first normalized for the student.

    Args:
        student: A model of this library that ends in softmax. It is trained in place and is the model to keep.
        teacher: A model with the same number of classes: any model of this library, or another model with the
            student's input shape.
        temperature: Temperature T, a positive number.
        weight: Weight of the teacher's term of the loss, in (0, 1].

    Raises:
        ValueError: An argument is out of range, or the student and the teacher don't match.
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
        normalize_integers = self._normalize_integers = _integer_normalizer(student)
        convert, probabilities = _teacher_image_converter(student, teacher), _is_softmax(teacher)

        def teacher_logits(x):  # A closure, because Keras would track a model attribute and its weights.
            outputs = teacher(convert(normalize_integers(x)), training=False)
            return ops.stop_gradient(_log(outputs) if probabilities else outputs)

        self._teacher_logits = teacher_logits
        self.built = True

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return self.student(self._normalize_integers(x), training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool | None = True
    ) -> Tensor:
        if not training:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        losses = distillation_loss(self._teacher_logits(x), _log(y_pred), self.temperature)
        if sample_weight is not None:
            losses = losses * ops.cast(sample_weight, losses.dtype)
        soft = self.weight * ops.mean(losses)
        hard = super().compute_loss(x, y, y_pred, sample_weight, training)
        return soft + (1.0 - self.weight) * hard


def distillation_loss(teacher, student, temperature=1.0):
    """Return `T² · KL(teacher ‖ student)` of each example, `(batch,)`, from logits or log-probabilities.

    Args:
        teacher: Logits or log-probabilities of the teacher, `(batch, classes)`. Adding a constant to a row doesn't
            change the result.
        student: Logits or log-probabilities of the student, `(batch, classes)`.
        temperature: Temperature T, which divides both.
    """
    teacher = ops.log_softmax(ops.cast(teacher, "float32") / temperature)
    student = ops.log_softmax(ops.cast(student, "float32") / temperature)
    return temperature**2 * ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)


def blend_targets(targets: Any, predictions: Any, weight: float, temperature: float = 1.0) -> Any:
    """Return targets that mix in a teacher's saved predictions, for distillation without running the teacher.

    With cross-entropy as the loss and temperature 1, the gradient is the same as with a `Distiller`. Saved predictions
    are for whole images, so train on whole images too: use the same crop as for the predictions, and no mixing.

    Args:
        targets: One-hot or mixed targets, `(n, classes)`.
        predictions: Probabilities that the teacher predicted for the same examples, in the same order.
        weight: Weight of the predictions, in [0, 1].
        temperature: Temperature, a positive number; above 1, it makes the predictions more uniform.

    Returns:
        float32 targets `(n, classes)`; each row sums to 1 if the rows of `targets` do.

    Raises:
        ValueError: The shapes differ, or an argument is out of range.
    """
    targets, predictions = np.asarray(targets, "float32"), np.asarray(predictions, "float64")
    weight = number("weight", weight, 0, 1)
    temperature = number("temperature", temperature, 0, float("inf"), low_open=True, high_open=True)
    if targets.shape != predictions.shape or targets.ndim != 2:
        raise ArgumentError(
            f"predictions of shape {predictions.shape} are not allowed: the targets have shape {targets.shape}, and "
            "both must be (n, classes)."
        )
    softened = np.maximum(predictions, _MIN_PROBABILITY) ** (1.0 / temperature)
    softened /= softened.sum(axis=1, keepdims=True)
    return ((1.0 - weight) * targets + weight * softened).astype("float32")


def _log(probabilities):
    return ops.log(ops.maximum(ops.cast(probabilities, "float32"), _MIN_PROBABILITY))


def _is_softmax(model):
    return getattr(last_layer(model), "activation", None) is keras.activations.softmax


def _integer_normalizer(student):
    """Return a function that normalizes integer images for the student and returns float images unchanged."""
    try:
        transform = preprocessing(student)
    except ArgumentError:  # The student isn't a model of this library, so its preprocessing is unknown.
        return lambda x: x
    axes = (-1,) if transform.data_format == "channels_last" else (-1, 1, 1)

    def normalize_integers(x):
        if "int" not in keras.backend.standardize_dtype(x.dtype):
            return x
        x = ops.cast(x, "float32")
        if transform.mean is None:
            return x
        mean, std = (
            ops.reshape(ops.convert_to_tensor(values, "float32"), axes) for values in (transform.mean, transform.std)
        )
        return normalize(x, mean, std)

    return normalize_integers


def _teacher_image_converter(student, teacher):
    """Return a function that converts images from the student's to the teacher's normalization, channels and size."""
    try:
        source, target = preprocessing(student), preprocessing(teacher)
    except ArgumentError:  # One of them isn't a model of this library, so its preprocessing is unknown.
        if student.input_shape[1:] != teacher.input_shape[1:]:
            raise ArgumentError(
                f"teacher={teacher.name!r} is not allowed: it takes inputs of shape {teacher.input_shape[1:]}, the "
                f"student {student.input_shape[1:]}. Images can be converted only between models of this library."
            ) from None
        return lambda x: x
    if source.channels != target.channels and 1 not in (source.channels, target.channels):
        raise ArgumentError(
            f"teacher={teacher.name!r} is not allowed: it takes {target.channels} channels, not {source.channels}."
        )
    if dataclasses.replace(source, crop=target.crop, interpolation=target.interpolation) == target:
        return lambda x: x
    # pixels / 255 = x · std + mean, or x / 255 if the model normalizes inside. The teacher needs the inverse of this.
    source_mean, source_std = (0.0, 1 / 255) if source.mean is None else _arrays(source.mean, source.std)
    target_mean, target_std = (0.0, 1 / 255) if target.mean is None else _arrays(target.mean, target.std)
    to_channels_last = {"channels_first": (0, 2, 3, 1), "channels_last": (0, 1, 2, 3)}[source.data_format]

    def convert(x):
        x = ops.transpose(ops.cast(x, "float32"), to_channels_last)
        x = x * ops.convert_to_tensor(source_std, "float32") + ops.convert_to_tensor(source_mean, "float32")
        if target.channels > source.channels:
            x = ops.repeat(x, target.channels, axis=-1)
        elif target.channels < source.channels:
            x = ops.mean(x, axis=-1, keepdims=True)
        if tuple(x.shape[1:3]) != target.size:
            x = ops.image.resize(x, target.size, interpolation="bilinear", antialias=True, data_format="channels_last")
        x = (x - ops.convert_to_tensor(target_mean, "float32")) / ops.convert_to_tensor(target_std, "float32")
        return x if target.data_format == "channels_last" else ops.transpose(x, (0, 3, 1, 2))

    return convert


def _arrays(*values):
    return [np.asarray(value, "float32") for value in values]
