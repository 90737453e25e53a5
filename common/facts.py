"""Records how the training images of a model's weights were prepared.

The model's stem holds the record. Everything that shares or copies the stem therefore has the record too: saved files,
a fused copy, a model with a new classifier, and a model that contains this one.
"""

import dataclasses
import weakref

from mobilenet_common.catalog import HALF, PUBLISHED
from mobilenet_common.choices import INTERPOLATIONS
from mobilenet_common.errors import ArgumentError, integer, mean_and_std, number, one_of
from mobilenet_common.nesting import inner_mobilenet, stem_of
from mobilenet_common.notices import warn_once

# Advice for warnings about assumed facts.
SET_PREPROCESSING = "call mobilenet_zoo.set_preprocessing(model, ...)."


@dataclasses.dataclass(frozen=True)
class Facts:
    """How a model's images are prepared, and the names of its classes.

    Attributes:
        size: Height and width of the evaluation images, or None for the model's input size.
        crop: Fraction of the resized image's shorter side that the center crop keeps.
        interpolation: Interpolation for resizing, one of `choices.INTERPOLATIONS`.
        mean, std: Mean and standard deviation of each color channel, for pixels in 0..1.
        class_names: Name of each output, or None.
        base: Name of the published weights that the model was fine-tuned from, or None.
        assumed: Why the facts are a guess, as the start of a sentence, or None if they are known.
    """

    size: tuple[int, int] | None = None
    crop: float = 0.875
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = HALF[0]
    std: tuple[float, ...] = HALF[1]
    class_names: tuple[str, ...] | None = None
    base: str | None = None
    assumed: str | None = None

    @classmethod
    def of_checkpoint(cls, checkpoint, size=None):
        """Return the facts of published weights.

        Args:
            checkpoint: A `Checkpoint`.
            size: `(height, width)` of the images; None for the size that the weights were trained at.
        """
        size = (checkpoint.input_size,) * 2 if size is None else tuple(size)
        crop = checkpoint.evaluation(min(size)).crop
        return cls(size, crop, checkpoint.interpolation, checkpoint.mean, checkpoint.std, None, checkpoint.name)

    def as_config(self):
        """Return a JSON-serializable dict that `from_config` reads; it has no class names."""
        config = dataclasses.asdict(self)
        del config["class_names"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}

    @classmethod
    def from_config(cls, config):
        """Return the facts in a dict from `as_config`.

        Raises:
            ValueError: If a value is missing or not allowed.
        """
        try:
            size, (mean, std) = config["size"], mean_and_std(config["mean"], config["std"])
            if mean is None:
                raise ArgumentError("mean=None and std=None are not allowed: they must be numbers.")
            for name in ("base", "assumed"):
                if not isinstance(config.get(name), str | None):
                    raise ArgumentError(f"{name}={config[name]!r} is not allowed: it must be a string or None.")
            return cls(
                size=None if size is None else (integer("size", size[0], 1), integer("size", size[1], 1)),
                crop=number("crop", config["crop"], 0, 1, low_open=True),
                interpolation=one_of("interpolation", config["interpolation"], INTERPOLATIONS),
                mean=mean,
                std=std,
                base=config.get("base"),
                assumed=config.get("assumed"),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise ArgumentError(f"{config!r} does not describe how images are prepared ({error!r}).") from error


_CLASS_NAMES = weakref.WeakKeyDictionary()  # by model, because models that share a stem can have different classes


def remember(model, facts):
    """Attach `facts` to a model and return the model.

    The stem keeps the facts; the class names are kept for the lifetime of the model object. If `facts` is None, the
    model doesn't change.
    """
    if facts is not None:
        stem = stem_of(model)
        if stem is not None:
            stem.image_facts = dataclasses.replace(facts, class_names=None)
        _CLASS_NAMES[model] = facts.class_names
    return model


def facts_of(model):
    """Return the `Facts` of a model, or None if the model has no record.

    If the stem has no record, as in older files, and the model has the name of published weights, the result is the
    facts of those weights.
    """
    facts = getattr(stem_of(model), "image_facts", None)
    if facts is None:
        names = [candidate.name for candidate in (model, inner_mobilenet(model)) if candidate is not None]
        facts = next((Facts.of_checkpoint(PUBLISHED[name]) for name in names if name in PUBLISHED), None)
    class_names = _CLASS_NAMES.get(model)
    return dataclasses.replace(facts or Facts(), class_names=class_names) if class_names else facts


def warn_if_assumed(owner, facts, remedy):
    """Warn once for `owner` if `facts` are assumed; `remedy` says what to do if the assumption is wrong."""
    if facts is not None and facts.assumed:
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (facts.mean, facts.std))
        warn_once(
            owner,
            f"{facts.assumed}: a mean of ({mean}), a standard deviation of ({std}) and {facts.interpolation} resizing "
            f"are assumed. If that is wrong, {remedy}",
        )
