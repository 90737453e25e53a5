"""How the images were prepared that a model's weights were trained on.

The stem of the model keeps it, so that whatever shares or copies the stem has it too: the model's files, a fused copy,
a fresh classifier, a model of which this one is a part.
"""

import dataclasses
import weakref

from mobilenet_common.catalog import HALF, PUBLISHED
from mobilenet_common.choices import INTERPOLATIONS
from mobilenet_common.errors import ArgumentError, integer, mean_and_std, number, one_of
from mobilenet_common.nesting import inner_mobilenet, stem_of
from mobilenet_common.notices import warn_once

# What to do where the facts had to be assumed.
SET_PREPROCESSING = "call mobilenet_zoo.set_preprocessing(model, ...)."


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known about a model.

    Attributes:
        size: Height and width of the images that it is evaluated with, or None for the model's own.
        crop: Fraction of the resized image's shorter side that they take.
        interpolation: How images are resized.
        mean, std: Of each color, for pixels in 0..1.
        class_names: A name for each output, or None.
        base: Name of the published weights that it started from, or None.
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
        """Return the facts of published weights, for images of `size` (height, width), by default the training's."""
        size = (checkpoint.input_size,) * 2 if size is None else tuple(size)
        at = checkpoint.evaluation(min(size))
        return cls(size, at.crop, checkpoint.interpolation, checkpoint.mean, checkpoint.std, None, checkpoint.name)

    def as_config(self):
        """Return what `from_config` reads, in types that JSON has, without the class names."""
        config = dataclasses.asdict(self)
        del config["class_names"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}

    @classmethod
    def from_config(cls, config):
        """Return the facts in a configuration.

        Raises:
            ValueError: A value is missing or not allowed.
        """
        try:
            size, (mean, std) = config["size"], mean_and_std(config["mean"], config["std"])
            if mean is None:
                raise ArgumentError("mean=None and std=None are not allowed: they must be numbers.")
            for name in ("base", "assumed"):
                if not isinstance(config.get(name), str | None):
                    raise ArgumentError(f"{name}={config[name]!r} is not allowed: it must be a text or None.")
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


_CLASS_NAMES = weakref.WeakKeyDictionary()  # the classifier's, which models that share a stem may differ in


def remember(model, facts):
    """Keep `facts` with a model, in its stem and for the class names as long as it lives; return the model.

    None is nothing to keep.
    """
    if facts is not None:
        stem = stem_of(model)
        if stem is not None:
            stem.image_facts = dataclasses.replace(facts, class_names=None)
        _CLASS_NAMES[model] = facts.class_names
    return model


def facts_of(model):
    """Return the `Facts` of a model, or None where nothing is known but that this library builds it.

    Files that are older than the facts in the stem are known by the name of the published weights, which they keep.
    """
    facts = getattr(stem_of(model), "image_facts", None)
    if facts is None:
        names = [owner.name for owner in (model, inner_mobilenet(model)) if owner is not None]
        facts = next((Facts.of_checkpoint(PUBLISHED[name]) for name in names if name in PUBLISHED), None)
    class_names = _CLASS_NAMES.get(model)
    return dataclasses.replace(facts or Facts(), class_names=class_names) if class_names else facts


def warn_if_assumed(owner, facts, remedy):
    """Say once for `owner` what was assumed about a model's images, and what to do if it is wrong."""
    if facts is not None and facts.assumed:
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (facts.mean, facts.std))
        warn_once(
            owner,
            f"{facts.assumed}: a mean of ({mean}), a standard deviation of ({std}) and {facts.interpolation} resizing "
            f"are assumed. If that is wrong, {remedy}",
        )
