"""The recipe of a training run as data. Each field has a description and allowed values."""

import dataclasses
from typing import Any

import yaml

from mobilenet_common.errors import ArgumentError
from mobilenet_zoo.training.recipes.fields import Part, recipe_field

# The options of each optimizer besides learning rate, decay and clipping. Null selects Keras's default.
OPTIMIZERS = {
    "adamw": ("beta_1", "beta_2", "epsilon"),
    "adam": ("beta_1", "beta_2", "epsilon"),
    "lion": ("beta_1", "beta_2"),
    "rmsprop": ("rho", "momentum", "epsilon"),
    "sgd": ("momentum", "nesterov"),
}


@dataclasses.dataclass(frozen=True)
class Optimizer(Part):
    """The optimizer that updates the weights."""

    name: str = recipe_field("Name of the optimizer.", "choice", "adamw", choices=tuple(OPTIMIZERS))
    learning_rate: float = recipe_field("Learning rate after the warm-up.", "number", 1e-3, low_open=True)
    learning_rate_per: int | None = recipe_field(
        "Number of images per optimizer step that the recipe's learning rates are meant for: the rates are multiplied "
        "by batch_size × accumulation_steps / learning_rate_per. Null uses the rates unchanged.",
        "integer",
        None,
        low=1,
        null=True,
    )
    weight_decay: float = recipe_field(
        "Decoupled weight decay: each step subtracts learning rate × weight_decay × kernel from a kernel. Norms, "
        "biases and layer scales don't decay.",
        "number",
        0.0,
    )
    l2: float = recipe_field(
        "L2 penalty: l2 × kernel is added to the gradient of each kernel, as if the loss had an L2 term.", "number", 0.0
    )
    decay_depthwise: bool = recipe_field("Whether depthwise kernels decay too.", "boolean", True)
    momentum: float | None = recipe_field("Momentum (sgd, rmsprop).", "number", None, high=1, high_open=True, null=True)
    nesterov: bool | None = recipe_field("Whether to use Nesterov momentum (sgd).", "boolean", None, null=True)
    beta_1: float | None = recipe_field(
        "Decay rate of the gradient's mean (adam, adamw), or weight of that mean in the update (lion).",
        "number",
        None,
        high=1,
        high_open=True,
        null=True,
    )
    beta_2: float | None = recipe_field(
        "Decay rate of the gradient's mean square (adam, adamw) or mean (lion).",
        "number",
        None,
        high=1,
        high_open=True,
        null=True,
    )
    rho: float | None = recipe_field(
        "Decay rate of the gradient's mean square (rmsprop).", "number", None, high=1, high_open=True, null=True
    )
    epsilon: float | None = recipe_field(
        "Constant that keeps the division finite (adam, adamw, rmsprop).", "number", None, low_open=True, null=True
    )
    clip_norm: float | None = recipe_field(
        "Maximum global norm of the gradients; larger gradients are scaled down to it.",
        "number",
        None,
        low_open=True,
        null=True,
    )
    accumulation_steps: int = recipe_field(
        "Number of batches whose gradients are averaged for one optimizer step.", "integer", 1, low=1
    )
    layer_decay: float = recipe_field(
        "Learning rate of each stage as a fraction of the next stage's (discriminative rates); 1 for a single rate.",
        "number",
        1.0,
        high=1,
        low_open=True,
    )

    def __post_init__(self):
        super().__post_init__()
        unsupported = {name for names in OPTIMIZERS.values() for name in names} - set(OPTIMIZERS[self.name])
        for name in sorted(unsupported):
            if getattr(self, name) is not None:
                supported = ", ".join(OPTIMIZERS[self.name])
                raise ArgumentError(
                    f"{name}={getattr(self, name)!r} is not allowed: {self.name} takes {supported}. Set it to null."
                )


@dataclasses.dataclass(frozen=True)
class Schedule(Part):
    """The learning rate schedule, which counts optimizer steps."""

    name: str = recipe_field(
        "Schedule after the warm-up: cosine falls to final_learning_rate at the end; exponential and step multiply the "
        "rate by decay_rate every decay_epochs (smoothly or in steps).",
        "choice",
        "cosine",
        choices=("constant", "cosine", "exponential", "step"),
    )
    warmup_epochs: float = recipe_field("Number of epochs in which the rate rises linearly.", "number", 0.0)
    warmup_learning_rate: float = recipe_field("Learning rate in the first step of the warm-up.", "number", 0.0)
    final_learning_rate: float = recipe_field(
        "Learning rate at the end of cosine, and lower bound of exponential and step.", "number", 0.0
    )
    decay_rate: float = recipe_field(
        "Factor by which the rate is multiplied (exponential, step).", "number", 0.97, low_open=True, high=1
    )
    decay_epochs: float = recipe_field(
        "Number of epochs after which the rate is multiplied by decay_rate once (exponential, step).",
        "number",
        1.0,
        low_open=True,
    )


@dataclasses.dataclass(frozen=True)
class Ema(Part):
    """Moving averages of the weights, which are evaluated and saved instead of the weights."""

    momentum: float = recipe_field(
        "Fraction of the old average that is kept in each step.", "number", 0.9999, high=1, high_open=True
    )
    warmup: bool = recipe_field(
        "Whether step k keeps at most (1 + k) / (10 + k) of the old average, so that a short run's average forgets the "
        "initial weights.",
        "boolean",
        True,
    )


@dataclasses.dataclass(frozen=True)
class Loss(Part):
    """The loss, which is cross-entropy."""

    label_smoothing: float = recipe_field(
        "Fraction of each target that is distributed over all classes.", "number", 0.0, high=1, high_open=True
    )


@dataclasses.dataclass(frozen=True)
class Model(Part):
    """Options of the model for training."""

    dropout_rate: float | None = recipe_field(
        "Dropout rate before the classifier; null for the variant's default.",
        "number",
        None,
        high=1,
        high_open=True,
        null=True,
    )
    drop_path_rate: float = recipe_field(
        "Stochastic depth: drop rate of the last block; it grows linearly from the first block to the last.",
        "number",
        0.0,
        high=1,
        high_open=True,
    )
    norm_momentum: float | None = recipe_field(
        "Momentum of batch norm's moving statistics; null for the model's default.",
        "number",
        None,
        high=1,
        high_open=True,
        null=True,
    )
    freeze_batch_norm: bool = recipe_field(
        "Whether to freeze batch norm's statistics, scale and offset during the run, for batches that are too small "
        "for good statistics; see mobilenet_zoo.freeze_batch_norm.",
        "boolean",
        False,
    )


@dataclasses.dataclass(frozen=True)
class RandAugment(Part):
    """RandAugment: random operations on each image (Cubuk et al., 2020)."""

    operations: int = recipe_field("Number of operations per image.", "integer", 2, low=1)
    magnitude: float = recipe_field("Magnitude of the operations; they are strongest at 10.", "number", 9.0, high=10)
    magnitude_std: float = recipe_field(
        "Standard deviation of the magnitude, which is drawn for each operation.", "number", 0.5
    )


@dataclasses.dataclass(frozen=True)
class Augmentation(Part):
    """Augmentation of each training image."""

    crop_scale: tuple | None = recipe_field(
        "Range of the fraction of the image's area that a random crop covers; null for the evaluation crop.",
        "pair",
        (0.08, 1.0),
        high=1,
        null=True,
    )
    crop_ratio: tuple = recipe_field(
        "Range of the aspect ratio (width / height) of a random crop.", "pair", (0.75, 4 / 3)
    )
    flip: float = recipe_field("Probability of a horizontal flip.", "number", 0.5, high=1)
    color_jitter: float = recipe_field(
        "Maximum relative change of brightness, contrast and saturation.", "number", 0.0, high=1
    )
    randaugment: RandAugment | None = recipe_field(RandAugment.__doc__, RandAugment, None, null=True)
    erasing: float = recipe_field(
        "Probability of erasing a random rectangle (Zhong et al., 2017).", "number", 0.0, high=1
    )


@dataclasses.dataclass(frozen=True)
class Mixing(Part):
    """Mixing of pairs of images and their targets."""

    mixup: float = recipe_field("Alpha of mixup (Zhang et al., 2018); 0 for no mixup.", "number", 0.8)
    cutmix: float = recipe_field("Alpha of CutMix (Yun et al., 2019); 0 for no CutMix.", "number", 1.0)
    probability: float = recipe_field("Probability that a batch is mixed.", "number", 1.0, low_open=True, high=1)
    switch_probability: float = recipe_field(
        "Probability of CutMix instead of mixup if both are enabled.", "number", 0.5, high=1
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.mixup and not self.cutmix:
            raise ArgumentError(
                "mixup=0 with cutmix=0 is not allowed: set one of them to a positive number, or set mixing to null."
            )


@dataclasses.dataclass(frozen=True)
class Distillation(Part):
    """Distillation from a teacher (Hinton et al., 2015)."""

    temperature: float = recipe_field(
        "Temperature that divides the logits of teacher and student.", "number", 1.0, low_open=True
    )
    weight: float = recipe_field(
        "Weight of the teacher's predictions in the loss; the labels get the rest.",
        "number",
        0.5,
        low_open=True,
        high=1,
    )


@dataclasses.dataclass(frozen=True)
class Recipe(Part):
    """Configuration of a training run."""

    name: str = recipe_field("Name of the recipe.", "text", "custom")
    summary: str = recipe_field("Summary of the recipe in one sentence.", "text", "")
    source: str = recipe_field("Source of the recipe's numbers: paper and section.", "text", "")
    epochs: int = recipe_field("Number of epochs in which all layers train.", "integer", 20, low=1)
    head_epochs: int = recipe_field(
        "Number of epochs in which only the head trains, before all layers train.", "integer", 0
    )
    head_learning_rate: float | None = recipe_field(
        "Learning rate in the head_epochs; null for optimizer.learning_rate.", "number", None, low_open=True, null=True
    )
    batch_size: int = recipe_field("Number of images in a batch, over all devices.", "integer", 64, low=1)
    image_size: int | None = recipe_field(
        "Image height and width in pixels; null for the model's default.", "integer", None, low=8, null=True
    )
    seed: int = recipe_field("Random seed of weights, image order, augmentation and dropout.", "integer", 0)
    optimizer: Optimizer = recipe_field(Optimizer.__doc__, Optimizer, Optimizer)
    schedule: Schedule = recipe_field(Schedule.__doc__, Schedule, Schedule)
    ema: Ema | None = recipe_field(Ema.__doc__, Ema, None, null=True)
    loss: Loss = recipe_field(Loss.__doc__, Loss, Loss)
    model: Model = recipe_field(Model.__doc__, Model, Model)
    augmentation: Augmentation = recipe_field(Augmentation.__doc__, Augmentation, Augmentation)
    mixing: Mixing | None = recipe_field(Mixing.__doc__, Mixing, None, null=True)
    distillation: Distillation | None = recipe_field(Distillation.__doc__, Distillation, None, null=True)
    balance: str | None = recipe_field(
        "Handling of classes of unequal size: weights in the loss, or sampling all classes equally often.",
        "choice",
        None,
        choices=("weights", "sampling"),
        null=True,
    )
    precision: str = recipe_field(
        "Type in which layers compute; the weights stay float32, and mixed_float16 scales the loss.",
        "choice",
        "float32",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    steps_per_execution: int = recipe_field(
        "Number of batches that one call of the compiled training step processes.", "integer", 1, low=1
    )
    rematerialization: bool = recipe_field(
        "Whether to recompute blocks in the backward pass to save memory.", "boolean", False
    )

    def __post_init__(self):
        super().__post_init__()
        if self.schedule.warmup_epochs >= self.epochs and self.schedule.warmup_epochs:
            raise ArgumentError(
                f"schedule.warmup_epochs={self.schedule.warmup_epochs} is not allowed: "
                f"it must be less than epochs={self.epochs}. Use more epochs, or a shorter warm-up such as "
                f"schedule.warmup_epochs={min(self.epochs / 2, 1):g}, or 0 for none."
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as nested dictionaries of plain values, which `load_recipe` accepts."""
        return _plain(dataclasses.asdict(self))

    def to_yaml(self) -> str:
        """Return the recipe with every field as YAML text, which `load_recipe` reads from a file."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True, width=110)


def parts(recipe_class=Recipe, path=""):
    """Yield `(path, Field)` for each field; the fields of a section follow the section."""
    for field in dataclasses.fields(recipe_class):
        yield path + field.name, field
        kind = field.metadata["allowed"].kind
        if isinstance(kind, type):
            yield from parts(kind, f"{path}{field.name}.")


def difference(first: Recipe, second: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return `{field: (value in first, value in second)}` of the fields that differ between two recipes."""
    differences = {}

    def compare(path, first_value, second_value):
        if isinstance(first_value, dict) and isinstance(second_value, dict):
            for name in first_value:
                compare(f"{path}.{name}" if path else name, first_value[name], second_value[name])
        elif first_value != second_value:
            differences[path] = (first_value, second_value)

    compare("", first.as_dict(), second.as_dict())
    return differences


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
