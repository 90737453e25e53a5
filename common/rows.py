"""The rows of an architecture's table: one frozen dataclass a kind of block, one instance a block.

Widths in a row are those of the table, at width 1. A field that says None takes the architecture's own setting.
`layer_scale` is the first value of the learned factors, or False for none where the architecture has them.
"""

import dataclasses
import typing

from mobilenet_common.errors import ArgumentError, integer, number, odd_kernel, one_of, pair, plain_value
from mobilenet_common.widths import SCALING


@dataclasses.dataclass(frozen=True)
class Row:
    """Base of the rows; checks the fields that several kinds share. Each has `filters` and `stride`."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check = _CHECKS.get(field.name)
            value = getattr(self, field.name)
            may_be_none = type(None) in typing.get_args(field.type)
            if check is not None and not (value is None and may_be_none):
                object.__setattr__(self, field.name, check(field.name, value))


@dataclasses.dataclass(frozen=True)
class Conv(Row):
    """A convolution of its own, as in stems, in V4's first stages and before the pool.

    `scaling` says how `filters` follow a width multiplier: `"scale"`, `"grow"` (only above 1), `"fixed"`, or
    `"follow"` (in the table's ratio to the row's own input).
    """

    filters: int
    kernel: int = 3
    stride: int = 1
    activation: str | None = None
    scaling: str = "scale"


@dataclasses.dataclass(frozen=True)
class Separable(Row):
    """`DepthwiseSeparable`: V1."""

    filters: int
    stride: int = 1
    kernel: int = 3


@dataclasses.dataclass(frozen=True)
class Inverted(Row):
    """`InvertedResidual`: V2 and V3, in the column order of V3's tables.

    `expanded` None: no expansion. `squeeze`: squeeze-and-excitation's fraction of the expanded width, 0 for none.
    """

    kernel: int
    expanded: int | None
    filters: int
    squeeze: float = 0.0
    activation: str | None = None
    stride: int = 1
    shortcut: bool = True


@dataclasses.dataclass(frozen=True)
class Fused(Row):
    """`FusedInvertedBottleneck`: V4's FusedIB."""

    kernel: int
    expanded: int
    filters: int
    stride: int = 1
    shortcut: bool = True
    linear: bool = True


@dataclasses.dataclass(frozen=True)
class Universal(Row):
    """`UniversalInvertedBottleneck`: V4's UIB, in the column order of V4's tables. A kernel of 0 leaves one out."""

    start: int
    middle: int
    expanded: int
    filters: int
    stride: int = 1
    end: int = 0
    shortcut: bool = True
    linear: bool = True
    layer_scale: float | bool | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.stride > 1 and not (self.start or self.middle or self.end):
            raise ArgumentError(
                f"stride={self.stride} needs a depthwise convolution that can stride: give start, middle or end."
            )


@dataclasses.dataclass(frozen=True)
class Attention(Row):
    """`MobileAttention`: V4's Mobile MQA. `kv_kernel` 0: key and value see the map at full size."""

    filters: int
    heads: int
    key_size: int
    value_size: int | None = None
    kv_kernel: int = 0
    kv_stride: int = 1
    query_stride: int | tuple[int, int] = 1
    multi_query: bool = True
    attention_dropout: float = 0.0
    projection_dropout: float = 0.0
    shortcut: bool = True
    layer_scale: float | bool | None = None

    stride = 1

    def __post_init__(self):
        super().__post_init__()
        if self.kv_stride > 1 and not self.kv_kernel:
            raise ArgumentError(f"kv_stride={self.kv_stride} needs kv_kernel, the kernel of the striding convolution.")


@dataclasses.dataclass(frozen=True)
class Excite(Row):
    """`SqueezeExcite` as a block of its own: the compact family. `squeeze`: channels in between."""

    squeeze: int
    activation: str = "silu"
    gate: str = "sigmoid"

    filters = None  # as many as come in
    stride = 1

    def __post_init__(self):
        object.__setattr__(self, "squeeze", integer("squeeze", self.squeeze, 1))  # channels; other rows have a share


@dataclasses.dataclass(frozen=True)
class ChannelAttend(Row):
    """`ChannelAttention`: the compact family."""

    heads: int
    stride: int = 1

    filters = None  # as many as come in


@dataclasses.dataclass(frozen=True)
class Dense(Row):
    """The wide layer between pool and classifier. `normalization` None: none; `"default"`: the architecture's."""

    filters: int
    normalization: str | None = "default"
    use_bias: bool = False
    activation: str | None = None
    scaling: str = "fixed"


# The word for each kind of row in YAML.
KINDS = {
    "conv": Conv,
    "separable": Separable,
    "inverted": Inverted,
    "fused": Fused,
    "universal": Universal,
    "attention": Attention,
    "squeeze_excite": Excite,
    "channel_attention": ChannelAttend,
}


def _layer_scale(name, value):
    return False if plain_value(value) is False else number(name, value, 0, 100, low_open=True)


def _query_stride(name, value):
    rows, columns = pair(name, value, 1)
    return rows if rows == columns else (rows, columns)


def _flag(name, value):
    value = plain_value(value)
    if not isinstance(value, bool):
        raise ArgumentError(f"{name}={value!r} is not allowed: it must be true or false.")
    return value


def _at_least_one(name, value):
    return integer(name, value, 1)


def _stride(name, value):
    return one_of(name, value, (1, 2))


def _rate(name, value):
    return number(name, value, 0, 1, high_open=True)


def _optional_kernel(name, value):
    return odd_kernel(name, value, zero_is_none=True) or 0


_CHECKS = {
    "filters": _at_least_one,
    "expanded": _at_least_one,
    "heads": _at_least_one,
    "key_size": _at_least_one,
    "value_size": _at_least_one,
    "kernel": odd_kernel,
    "start": _optional_kernel,
    "middle": _optional_kernel,
    "end": _optional_kernel,
    "kv_kernel": _optional_kernel,
    "stride": _stride,
    "kv_stride": _stride,
    "query_stride": _query_stride,
    "squeeze": lambda name, value: number(name, value, 0, 1),
    "layer_scale": _layer_scale,
    "attention_dropout": _rate,
    "projection_dropout": _rate,
    "shortcut": _flag,
    "linear": _flag,
    "multi_query": _flag,
    "use_bias": _flag,
    "scaling": lambda name, value: one_of(name, value, SCALING),
}
