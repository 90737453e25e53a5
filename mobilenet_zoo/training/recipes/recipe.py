"""A recipe: everything that decides a training run, as data. Each field says what it does and what it may hold."""

import dataclasses
from typing import Any

import yaml

from mobilenet_common.errors import ArgumentError
from mobilenet_zoo.training.recipes.fields import Part, described

# What each optimizer takes besides rate, decay and clipping; null leaves Keras's default.
OPTIMIZERS = {
    "adamw": ("beta_1", "beta_2", "epsilon"),
    "adam": ("beta_1", "beta_2", "epsilon"),
    "lion": ("beta_1", "beta_2"),
    "rmsprop": ("rho", "momentum", "epsilon"),
    "sgd": ("momentum", "nesterov"),
}


@dataclasses.dataclass(frozen=True)
class Optimizer(Part):
    """How the weights move."""

    name: str = described("The rule.", "choice", "adamw", choices=tuple(OPTIMIZERS))
    learning_rate: float = described("The rate when warm-up ends.", "number", 1e-3, low_open=True)
    learning_rate_per: int | None = described(
        "The batch that the recipe's rates are for: they are multiplied by the images of a step (batch_size × "
        "accumulation_steps) over it. Null takes them as they are.",
        "integer",
        None,
        low=1,
        null=True,
    )
    weight_decay: float = described(
        "Decoupled decay: a step takes the rate times this from each kernel (not from norms, biases, layer scales).",
        "number",
        0.0,
    )
    l2: float = described(
        "L2 penalty: adds this times each kernel to its gradient, as a term of the loss would.", "number", 0.0
    )
    decay_depthwise: bool = described("Whether depthwise kernels decay as well.", "boolean", True)
    momentum: float | None = described("Of sgd and rmsprop.", "number", None, high=1, high_open=True, null=True)
    nesterov: bool | None = described("Of sgd: looks a step ahead.", "boolean", None, null=True)
    beta_1: float | None = described(
        "Of adam, adamw, lion: decay of the mean.", "number", None, high=1, high_open=True, null=True
    )
    beta_2: float | None = described(
        "Of adam, adamw, lion: decay of the mean of squares.", "number", None, high=1, high_open=True, null=True
    )
    rho: float | None = described(
        "Of rmsprop: decay of the mean of squares.", "number", None, high=1, high_open=True, null=True
    )
    epsilon: float | None = described(
        "Of adam, adamw, rmsprop: keeps the division finite.", "number", None, low_open=True, null=True
    )
    clip_norm: float | None = described(
        "Largest norm of all gradients together; larger ones are scaled down.", "number", None, low_open=True, null=True
    )
    accumulation_steps: int = described("Batches whose gradients are averaged for one step.", "integer", 1, low=1)
    layer_decay: float = described(
        "Each stage learns at this times the rate of the stage behind it (discriminative rates); 1 for one rate.",
        "number",
        1.0,
        high=1,
        low_open=True,
    )

    def __post_init__(self):
        super().__post_init__()
        foreign = {name for names in OPTIMIZERS.values() for name in names} - set(OPTIMIZERS[self.name])
        for name in sorted(foreign):
            if getattr(self, name) is not None:
                own = ", ".join(OPTIMIZERS[self.name])
                raise ArgumentError(
                    f"{name}={getattr(self, name)!r} is not allowed: {self.name} takes {own}. Set it to null."
                )


@dataclasses.dataclass(frozen=True)
class Schedule(Part):
    """How the learning rate goes, step by step; it counts steps of the optimizer."""

    name: str = described(
        "After warm-up: cosine falls to the final rate at the end, exponential and step multiply by decay_rate every "
        "decay_epochs (smoothly, or at once).",
        "choice",
        "cosine",
        choices=("constant", "cosine", "exponential", "step"),
    )
    warmup_epochs: float = described("Epochs in which the rate rises linearly.", "number", 0.0)
    warmup_learning_rate: float = described("The rate at the first step of warm-up.", "number", 0.0)
    final_learning_rate: float = described(
        "The rate at the end of cosine; exponential and step don't go below it.", "number", 0.0
    )
    decay_rate: float = described("Of exponential and step: the factor.", "number", 0.97, low_open=True, high=1)
    decay_epochs: float = described(
        "Of exponential and step: epochs from factor to factor.", "number", 1.0, low_open=True
    )


@dataclasses.dataclass(frozen=True)
class Ema(Part):
    """An average of the weights over the steps, which is evaluated and kept in their place."""

    momentum: float = described(
        "Fraction of the old average that a step keeps.", "number", 0.9999, high=1, high_open=True
    )
    warmup: bool = described(
        "Whether step k keeps at most (1 + k) / (10 + k), so that a short run's average forgets its beginning.",
        "boolean",
        True,
    )


@dataclasses.dataclass(frozen=True)
class Loss(Part):
    """What is made small: the cross-entropy."""

    label_smoothing: float = described(
        "Fraction of each target that is spread over all classes.", "number", 0.0, high=1, high_open=True
    )


@dataclasses.dataclass(frozen=True)
class Model(Part):
    """What the model is made with for training."""

    dropout_rate: float | None = described(
        "Before the classifier; null for the variant's own.", "number", None, high=1, high_open=True, null=True
    )
    drop_path_rate: float = described(
        "Stochastic depth: grows linearly to this in the last block.", "number", 0.0, high=1, high_open=True
    )
    norm_momentum: float | None = described(
        "Of batch norm's moving statistics; null for the model's own.",
        "number",
        None,
        high=1,
        high_open=True,
        null=True,
    )
    freeze_batch_norm: bool = described(
        "Whether batch norm keeps its statistics, scale and offset during the run, as for batches too small to have "
        "statistics of their own; see mobilenet_zoo.freeze_batch_norm.",
        "boolean",
        False,
    )


@dataclasses.dataclass(frozen=True)
class RandAugment(Part):
    """Random operations on an image (Cubuk et al., 2020)."""

    operations: int = described("How many each image gets.", "integer", 2, low=1)
    magnitude: float = described("Their strength; at 10 an operation does its most.", "number", 9.0, high=10)
    magnitude_std: float = described("Spread of the strength from image to image.", "number", 0.5)


@dataclasses.dataclass(frozen=True)
class Augmentation(Part):
    """What is done to each image of training."""

    crop_scale: tuple | None = described(
        "Fraction of the image that a random crop takes; null for the crop of evaluation.",
        "pair",
        (0.08, 1.0),
        high=1,
        null=True,
    )
    crop_ratio: tuple = described("Width over height of a random crop.", "pair", (0.75, 4 / 3))
    flip: float = described("Probability of mirroring left and right.", "number", 0.5, high=1)
    color_jitter: float = described(
        "Largest relative change of brightness, contrast and saturation.", "number", 0.0, high=1
    )
    randaugment: RandAugment | None = described("Random operations.", RandAugment, None, null=True)
    erasing: float = described("Probability of erasing a rectangle (Zhong et al., 2017).", "number", 0.0, high=1)


@dataclasses.dataclass(frozen=True)
class Mixing(Part):
    """Pairs of images made one, and their targets with them."""

    mixup: float = described("Alpha of mixup (Zhang et al., 2018); 0 for none.", "number", 0.8)
    cutmix: float = described("Alpha of cutmix (Yun et al., 2019); 0 for none.", "number", 1.0)
    probability: float = described("Of a batch to be mixed.", "number", 1.0, low_open=True, high=1)
    switch_probability: float = described(
        "Of cutmix in place of mixup where both have an alpha.", "number", 0.5, high=1
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.mixup and not self.cutmix:
            raise ArgumentError(
                "mixup=0 with cutmix=0 is not allowed: give one of them an alpha, or set mixing to null."
            )


@dataclasses.dataclass(frozen=True)
class Distillation(Part):
    """Learning from a teacher (Hinton et al., 2015)."""

    temperature: float = described("Divides the logits of teacher and student.", "number", 1.0, low_open=True)
    weight: float = described("Of the teacher; the labels have the rest.", "number", 0.5, low_open=True, high=1)


@dataclasses.dataclass(frozen=True)
class Recipe(Part):
    """A training run as data."""

    name: str = described("What it is called.", "text", "custom")
    summary: str = described("What it is for, in a sentence.", "text", "")
    source: str = described("Where its numbers are from: paper and section.", "text", "")
    epochs: int = described("Epochs in which all layers train.", "integer", 20, low=1)
    head_epochs: int = described("Epochs before them, in which the head alone trains.", "integer", 0)
    head_learning_rate: float | None = described(
        "The rate in those; null for optimizer.learning_rate.", "number", None, low_open=True, null=True
    )
    batch_size: int = described("Images in a batch, over all devices.", "integer", 64, low=1)
    image_size: int | None = described(
        "Height and width in pixels; null for the model's own.", "integer", None, low=8, null=True
    )
    seed: int = described("Of weights, order, augmentation and dropout.", "integer", 0)
    optimizer: Optimizer = described(Optimizer.__doc__, Optimizer, Optimizer)
    schedule: Schedule = described(Schedule.__doc__, Schedule, Schedule)
    ema: Ema | None = described(Ema.__doc__, Ema, None, null=True)
    loss: Loss = described(Loss.__doc__, Loss, Loss)
    model: Model = described(Model.__doc__, Model, Model)
    augmentation: Augmentation = described(Augmentation.__doc__, Augmentation, Augmentation)
    mixing: Mixing | None = described(Mixing.__doc__, Mixing, None, null=True)
    distillation: Distillation | None = described(Distillation.__doc__, Distillation, None, null=True)
    balance: str | None = described(
        "For classes of unequal size: weights of the loss, or sampling each class as often.",
        "choice",
        None,
        choices=("weights", "sampling"),
        null=True,
    )
    precision: str = described(
        "What layers compute in; the weights stay float32, and float16 scales the loss.",
        "choice",
        "float32",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    steps_per_execution: int = described("Batches that one call of the compiled step trains on.", "integer", 1, low=1)
    rematerialization: bool = described(
        "Whether blocks are computed again going backwards, to keep less in memory.", "boolean", False
    )

    def __post_init__(self):
        super().__post_init__()
        if self.schedule.warmup_epochs >= self.epochs and self.schedule.warmup_epochs:
            raise ArgumentError(
                f"schedule.warmup_epochs={self.schedule.warmup_epochs} is not allowed: "
                f"it must be less than epochs={self.epochs}. Set more epochs, or a shorter warm-up with "
                f"schedule.warmup_epochs={min(self.epochs / 2, 1):g}, or 0 for none."
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as nested dictionaries of plain values, which `load_recipe` takes."""
        return _plain(dataclasses.asdict(self))

    def to_yaml(self) -> str:
        """Return the recipe with every field, as text that `load_recipe` reads."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True, width=110)


def parts(recipe_class=Recipe, path=""):
    """Yield `(path, Field)` for each field, those of parts after the part."""
    for field in dataclasses.fields(recipe_class):
        yield path + field.name, field
        kind = field.metadata["allowed"].kind
        if isinstance(kind, type):
            yield from parts(kind, f"{path}{field.name}.")


def difference(first: Recipe, second: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return `{field: (value in first, value in second)}` of two recipes, empty where they are the same."""
    found = {}

    def compare(path, one, other):
        if isinstance(one, dict) and isinstance(other, dict):
            for name in one:
                compare(f"{path}.{name}" if path else name, one[name], other[name])
        elif one != other:
            found[path] = (one, other)

    compare("", first.as_dict(), second.as_dict())
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
