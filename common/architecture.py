"""An architecture as data: the stem, the stages, row by row, and the head."""

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
    """What follows the stages: a convolution before the pool, a wide layer after it. Either may be missing."""

    conv: Conv | None = None
    dense: Dense | None = None

    def __post_init__(self):
        for name, kind in (("conv", Conv), ("dense", Dense)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ArgumentError(f"head {name}={value!r} is not allowed: it must be a {kind.__name__} row or None.")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network as a table. Widths are those at width 1; a model is built at `width` times its `width_multiplier`.

    Attributes:
        name: Start of the model's name.
        stem: The first convolution; None if the body is to take a feature map of any channel count.
        stages: Tuples of rows. Blocks are named after them: `stage3_block2` is the second row of the third.
        head: None if there is nothing to classify with.
        width: The variant's own width.
        rounding: `"divisible"` rounds widths to multiples, `"truncate"` drops the fraction (V1).
        divisor: What `"divisible"` rounds a row's filters to; expanded and squeezed widths round to 8.
        activation: Of every row that names none.
        squeeze_activation: Inside squeeze-and-excitation; None for the block's own.
        squeeze_divisor: What the squeezed width is rounded to; 1 rounds to the nearest integer.
        normalization: `"batch"`, `"group"`, `"layer"` or None.
        norm_epsilon, padding: What a model is built with if nothing else is asked for.
        dropout_rate: Before the classifier.
        layer_scale: First value of the factors in universal and attention rows; None for none.
        antialias: How a strided block halves its map: None, `"average"` or `"blur"`.
        minimum_size: The least height and width of an image, in pixels.
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
            raise ArgumentError(f"name={self.name!r} is not allowed: it must be a word.")
        for field, kind in (("stem", Conv), ("head", Head)):
            value = getattr(self, field)
            if value is not None and not isinstance(value, kind):
                raise ArgumentError(f"{field}={value!r} is not allowed: it must be a {kind.__name__} or None.")
        put("stages", tuple(tuple(stage) for stage in self.stages))
        for place, row in self.blocks():
            if not isinstance(row, Row) or isinstance(row, Dense):
                raise ArgumentError(f"{place} is {row!r}, which is not a row of an architecture's table.")
        if not self.stages or not all(self.stages):
            raise ArgumentError(
                "stages is not allowed to be empty or to hold an empty stage: give each at least one row."
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
        """Return `(name, row)` of every block, in order."""
        return [(f"stage{i}_block{j}", row) for i, stage in enumerate(self.stages, 1) for j, row in enumerate(stage, 1)]

    def scaled(self, width_multiplier: float = 1.0) -> "Architecture":
        """Return the same architecture with every width written out for `width * width_multiplier`, and `width` 1.

        Raises:
            ValueError: The multiplier is not in (0, 4].
        """
        width = self.width * number("width_multiplier", width_multiplier, 0, 4, low_open=True)
        if width == 1.0:
            return dataclasses.replace(self, width=1.0)
        return dataclasses.replace(self._mapped(_Scale(self, width).row), width=1.0)

    def with_activation(self, activation: Activation) -> "Architecture":
        """Return the same architecture with `activation` in every place but the gates of squeeze-and-excitation."""

        def plain(row):
            if row is None or not hasattr(row, "activation"):
                return row
            return dataclasses.replace(row, activation=activation if isinstance(row, Excite) else None)

        return dataclasses.replace(
            self._mapped(plain), activation=activation, squeeze_activation=self.squeeze_activation and activation
        )

    def with_normalization(self, normalization: str | None) -> "Architecture":
        """Return the same architecture with `normalization` wherever it normalizes."""

        def plain(row):
            if isinstance(row, Dense) and row.normalization is not None:
                return dataclasses.replace(row, normalization="default")
            return row

        return dataclasses.replace(self._mapped(plain), normalization=normalization)

    def _mapped(self, function):
        """Return the same architecture with `function` applied to every row."""
        stem = function(self.stem)
        stages = [[function(row) for row in stage] for stage in self.stages]
        head = self.head and Head(function(self.head.conv), function(self.head.dense))
        return dataclasses.replace(self, stem=stem, stages=stages, head=head)

    @classmethod
    def from_yaml(cls, source: PathLike) -> "Architecture":
        """Read an architecture from YAML: this library's own format, or a `stage_params` configuration.

        Args:
            source: A path, or the text itself.

        Raises:
            ValueError: Malformed YAML, or an unknown block, field or value; the message names the line.
            FileNotFoundError: A path at which there is no file.
        """
        from mobilenet_common.architecture_yaml import read

        return read(source)

    def to_yaml(self) -> str:
        """Return the architecture as text that `from_yaml` reads back to an equal one."""
        from mobilenet_common.architecture_yaml import write

        return write(self)


def check_activation(argument: str, value: Any) -> None:
    """Raise a `ValueError` unless Keras knows the activation `value`."""
    if value is None or (isinstance(value, str) and value in ACTIVATIONS):
        return
    import keras  # takes seconds, and the tables of this library can be read without it

    try:
        keras.activations.get(value)
    except (ValueError, TypeError):
        raise ArgumentError(
            f"{argument}={value!r} is not an activation of Keras: use a name such as 'relu', 'relu6', 'hard_swish', "
            "'silu' or 'gelu', or a function."
        ) from None


def model_name(architecture: Architecture, width_multiplier: float = 1.0) -> str:
    """Return the name of the model in timm's scheme, such as `mobilenetv4_conv_small_050`."""
    percent = f"{round(architecture.width * width_multiplier * 100):03d}"
    if "{width}" in architecture.name:
        return architecture.name.replace("{width}", percent)
    return architecture.name if percent == "100" else f"{architecture.name}_{percent}"


class _Scale:
    """Writes out the widths of a table's rows, called in their order: a row may follow the one before it."""

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
