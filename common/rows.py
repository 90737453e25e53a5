"""The rows of an architecture: one frozen dataclass for each kind of block, and one instance for each block.

The widths in a row are those at width 1. If `activation` or `layer_scale` is None, the architecture's setting applies.
`layer_scale` is the initial value of the learned factors; False turns layer scale off even if the architecture has it.
"""

import dataclasses
import typing

from mobilenet_common.errors import ArgumentError, integer, number, odd_kernel, one_of, pair, plain_value
from mobilenet_common.widths import SCALING


@dataclasses.dataclass(frozen=True)
class Row:
    """Base class of the rows; validates their fields. Every row has `filters` and `stride`."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check = _CHECKS.get(field.name)
            value = getattr(self, field.name)
            may_be_none = type(None) in typing.get_args(field.type)
            if check is not None and not (value is None and may_be_none):
                object.__setattr__(self, field.name, check(field.name, value))


@dataclasses.dataclass(frozen=True)
class Conv(Row):
    """A single convolution, as in stems, in V4's first stages and before the pool.

    `scaling` says how a width multiplier changes `filters`: `"scale"`, `"grow"` (only for multipliers above 1),
    `"fixed"`, or `"follow"` (keeps the ratio of `filters` to the input channels).
    """

    filters: int
    kernel: int = 3
    stride: int = 1
    activation: str | None = None
    scaling: str = "scale"


@dataclasses.dataclass(frozen=True)
class Separable(Row):
    """Row for `DepthwiseSeparable`, the block of V1."""

    filters: int
    stride: int = 1
    kernel: int = 3


@dataclasses.dataclass(frozen=True)
class Inverted(Row):
    """Row for `InvertedResidual`, the block of V2 and V3, in the column order of V3's tables.

    With `expanded=None`, the block has no expansion. `squeeze` is the squeezed width as a fraction of the expanded
    width; 0 leaves out squeeze-and-excitation.
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
    """Row for `FusedInvertedBottleneck`, V4's FusedIB."""

    kernel: int
    expanded: int
    filters: int
    stride: int = 1
    shortcut: bool = True
    linear: bool = True


@dataclasses.dataclass(frozen=True)
class Universal(Row):
    """Row for `UniversalInvertedBottleneck`, V4's UIB, in the column order of V4's tables.

    `start`, `middle` and `end` are the kernel sizes of the depthwise convolutions; 0 leaves a convolution out.
    """

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
                f"stride={self.stride} needs a depthwise convolution to apply the stride: set start, middle or end."
            )


@dataclasses.dataclass(frozen=True)
class Attention(Row):
    """Row for `MobileAttention`, V4's Mobile MQA.

    `kv_kernel` is the kernel size of the depthwise convolution on key and value; 0 leaves it out, so that they are
    computed from the feature map at full size.
    """

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
            raise ArgumentError(
                f"kv_stride={self.kv_stride} needs kv_kernel, the kernel size of the strided convolutions."
            )


@dataclasses.dataclass(frozen=True)
class Excite(Row):
    """Row for `SqueezeExcite` as a separate block, in the compact family. `squeeze` is the squeezed width."""

    squeeze: int
    activation: str = "silu"
    gate: str = "sigmoid"

    filters = None  # The block keeps the number of channels.
    stride = 1

    def __post_init__(self):
        # Here `squeeze` is a number of channels; in other rows it is a fraction.
        object.__setattr__(self, "squeeze", integer("squeeze", self.squeeze, 1))


@dataclasses.dataclass(frozen=True)
class ChannelAttend(Row):
    """Row for `ChannelAttention`, a block of the compact family."""

    heads: int
    stride: int = 1

    filters = None  # The block keeps the number of channels.


@dataclasses.dataclass(frozen=True)
class Dense(Row):
    """The wide layer between the pool and the classifier.

    `normalization` is None for no normalization, or `"default"` for the architecture's.
    """

    filters: int
    normalization: str | None = "default"
    use_bias: bool = False
    activation: str | None = None
    scaling: str = "fixed"


# The names of the kinds of rows in YAML.
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
