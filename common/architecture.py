"""Architectures as data: the stem, the stages with one row per block, and the head."""

import dataclasses
from typing import Any

from mobilenet_common.choices import ACTIVATIONS, ANTIALIASING, NORMALIZATIONS, PADDINGS
from mobilenet_common.conventions import TENSORFLOW
from mobilenet_common.errors import ArgumentError, integer, number, one_of
from mobilenet_common.rows import (
    Attention,
    ChannelAttend,
    Conv,
    Dense,
    Excite,
    Fused,
    Inverted,
    Row,
    Separable,
    Universal,
)
from mobilenet_common.types import Activation, PathLike
from mobilenet_common.widths import ROUNDING, make_divisible, scale_filters

__all__ = [
    "Architecture",
    "Attention",
    "ChannelAttend",
    "Conv",
    "Dense",
    "Excite",
    "Fused",
    "Head",
    "Inverted",
    "Separable",
    "Universal",
]


@dataclasses.dataclass(frozen=True)
class Head:
    """The layers between the stages and the classifier.

    Attributes:
        conv: Convolution before the global pool, or None.
        dense: Wide layer after the global pool, or None.
    """

    conv: Conv | None = None
    dense: Dense | None = None

    def __post_init__(self):
        for name, kind in (("conv", Conv), ("dense", Dense)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ArgumentError(f"head {name}={value!r} is not allowed: it must be a {kind.__name__} row or None.")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network as a table of rows. The rows give the widths at width 1.

    A model is built at `width` times the create function's `width_multiplier`.

    Attributes:
        name: Start of the model's name.
        stem: The first convolution; None if the body takes a feature map with any number of channels.
        stages: Tuples of rows, one tuple per stage. Blocks are named by their position: `stage3_block2` is the second
            row of the third stage.
        head: The layers before the classifier; None for a network without a classifier.
        width: Width of this variant.
        rounding: `"divisible"` rounds widths to multiples of a divisor, `"truncate"` rounds them down (V1).
        divisor: Divisor of a row's filters under `"divisible"`; expanded widths are rounded to multiples of 8.
        activation: Activation of every row that doesn't set its own.
        squeeze_activation: Activation inside squeeze-and-excitation; None for the activation of the block.
        squeeze_divisor: Divisor of the squeezed width; 1 rounds to the nearest integer.
        normalization: `"batch"`, `"group"`, `"layer"` or None.
        norm_epsilon: Default epsilon of a model's normalizations.
        padding: Default padding of a model, `"same"` or `"symmetric"`.
        dropout_rate: Default rate of the dropout before the classifier.
        layer_scale: Initial value of the layer scale in universal and attention rows; None for no layer scale.
        antialias: How a strided block halves its feature map: None (strided convolution), `"average"` or `"blur"`.
        minimum_size: Smallest allowed height and width of an image, in pixels.
    """

    name: str = "custom"
    stem: Conv | None = Conv(32, stride=2)
    stages: tuple[tuple[Row, ...], ...] = ()
    head: Head | None = Head()
    width: float = 1.0
    rounding: str = "divisible"
    divisor: int = 8
    activation: str = "relu"
    squeeze_activation: str | None = "relu"
    squeeze_divisor: int = 8
    normalization: str | None = "batch"
    norm_epsilon: float = TENSORFLOW.norm_epsilon
    padding: str = TENSORFLOW.padding
    dropout_rate: float = 0.2
    layer_scale: float | None = None
    antialias: str | None = None
    minimum_size: int = 32

    def __post_init__(self):
        def put(name, value):
            object.__setattr__(self, name, value)

        if not isinstance(self.name, str) or not self.name:
            raise ArgumentError(f"name={self.name!r} is not allowed: it must be a non-empty string.")
        for field, kind in (("stem", Conv), ("head", Head)):
            value = getattr(self, field)
            if value is not None and not isinstance(value, kind):
                raise ArgumentError(f"{field}={value!r} is not allowed: it must be a {kind.__name__} or None.")
        put("stages", tuple(tuple(stage) for stage in self.stages))
        for name, row in self.blocks():
            if not isinstance(row, Row) or isinstance(row, Dense):
                raise ArgumentError(f"{name}={row!r} is not allowed: it must be a row, such as Conv or Universal.")
        if not self.stages or not all(self.stages):
            raise ArgumentError(
                "stages is not allowed to be empty or to contain an empty stage: every stage needs at least one row."
            )
        put("width", number("width", self.width, 0, 4, low_open=True))
        one_of("rounding", self.rounding, tuple(ROUNDING))
        put("divisor", integer("divisor", self.divisor, 1))
        put("squeeze_divisor", integer("squeeze_divisor", self.squeeze_divisor, 1))
        for field in ("activation", "squeeze_activation"):
            check_activation(field, getattr(self, field))
        one_of("normalization", self.normalization, (*NORMALIZATIONS, None))
        put("norm_epsilon", number("norm_epsilon", self.norm_epsilon, 0, 1, low_open=True))
        one_of("padding", self.padding, PADDINGS)
        put("dropout_rate", number("dropout_rate", self.dropout_rate, 0, 1, high_open=True))
        if self.layer_scale is not None:
            put("layer_scale", number("layer_scale", self.layer_scale, 0, 100, low_open=True))
        one_of("antialias", self.antialias, ANTIALIASING)
        put("minimum_size", integer("minimum_size", self.minimum_size, 1))

    def blocks(self) -> list:
        """Return the `(name, row)` of every block, in order."""
        return [(f"stage{i}_block{j}", row) for i, stage in enumerate(self.stages, 1) for j, row in enumerate(stage, 1)]

    def scaled(self, width_multiplier: float = 1.0) -> "Architecture":
        """Return an architecture of `width` 1 whose rows have the widths for `width * width_multiplier`.

        Raises:
            ValueError: If the multiplier is not in (0, 4].
        """
        width = self.width * number("width_multiplier", width_multiplier, 0, 4, low_open=True)
        if width == 1.0:
            return dataclasses.replace(self, width=1.0)
        return dataclasses.replace(self._mapped(_Scale(self, width).row), width=1.0)

    def with_activation(self, activation: Activation) -> "Architecture":
        """Return a copy in which `activation` replaces every activation except the squeeze-and-excitation gates."""

        def replaced(row):
            if row is None or not hasattr(row, "activation"):
                return row
            return dataclasses.replace(row, activation=activation if isinstance(row, Excite) else None)

        return dataclasses.replace(
            self._mapped(replaced), activation=activation, squeeze_activation=self.squeeze_activation and activation
        )

    def with_normalization(self, normalization: str | None) -> "Architecture":
        """Return a copy in which `normalization` replaces every normalization."""

        def replaced(row):
            if isinstance(row, Dense) and row.normalization is not None:
                return dataclasses.replace(row, normalization="default")
            return row

        return dataclasses.replace(self._mapped(replaced), normalization=normalization)

    def _mapped(self, function):
        """Return a copy with `function` applied to every row."""
        stem = function(self.stem)
        stages = [[function(row) for row in stage] for stage in self.stages]
        head = self.head and Head(function(self.head.conv), function(self.head.dense))
        return dataclasses.replace(self, stem=stem, stages=stages, head=head)

    @classmethod
    def from_yaml(cls, source: PathLike) -> "Architecture":
        """Read an architecture from YAML, in this library's own format or as a `stage_params` configuration.

        Args:
            source: Path of a YAML file, or the YAML text itself.

        Raises:
            ValueError: If the YAML is malformed or contains an unknown block, field or value; the message names the
                line.
            FileNotFoundError: If there is no file at the path.
        """
        from mobilenet_common.architecture_yaml import read

        return read(source)

    def to_yaml(self) -> str:
        """Return the architecture as YAML text; `from_yaml` reads it back as an equal architecture."""
        from mobilenet_common.architecture_yaml import write

        return write(self)


def check_activation(argument: str, value: Any) -> None:
    """Raise a `ValueError` unless Keras knows the activation `value`."""
    if value is None or (isinstance(value, str) and value in ACTIVATIONS):
        return
    import keras  # Imported here because it takes seconds, and published architectures don't need it.

    try:
        keras.activations.get(value)
    except (ValueError, TypeError):
        raise ArgumentError(
            f"{argument}={value!r} is not an activation that Keras knows: pass a name such as 'relu', 'relu6', "
            "'hard_swish', 'silu' or 'gelu', or a function."
        ) from None


def model_name(architecture: Architecture, width_multiplier: float = 1.0) -> str:
    """Return the name of a model in timm's naming scheme, such as `mobilenetv4_conv_small_050`."""
    percent = f"{round(architecture.width * width_multiplier * 100):03d}"
    if "{width}" in architecture.name:
        return architecture.name.replace("{width}", percent)
    return architecture.name if percent == "100" else f"{architecture.name}_{percent}"


class _Scale:
    """Scales the rows of an architecture, one after the other, because a row can depend on the one before it."""

    def __init__(self, architecture, width):
        self.width = width
        self.truncates = architecture.rounding == "truncate"
        self.divisor = architecture.divisor
        self.base_in = self.actual_in = None

    def row(self, row: Any) -> Any:
        if row is None:
            return None
        changes = {}
        if row.filters is not None:
            changes["filters"] = self._scaled(row.filters, getattr(row, "scaling", "scale"), self.divisor)
        if getattr(row, "expanded", None) is not None:
            changes["expanded"] = self._scaled(row.expanded, "follow", 8)
        if isinstance(row, Excite) and self.base_in:
            ratio = self.actual_in / self.base_in
            changes["squeeze"] = max(1, round(row.squeeze * ratio))
        if row.filters is not None:
            self.base_in, self.actual_in = row.filters, changes["filters"]
        return dataclasses.replace(row, **changes)

    def _scaled(self, filters, scaling, divisor):
        def rounding(channels):
            return ROUNDING["truncate"](channels) if self.truncates else make_divisible(channels, divisor)

        return scale_filters(filters, self.width, scaling, rounding, base_in=self.base_in, actual_in=self.actual_in)
