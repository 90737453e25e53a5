"""Channel counts: how a width multiplier is rounded, and the rules by which a row follows or resists it."""

import math


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round `channels` to the nearest multiple of `divisor`, never below 90% of it nor below `divisor`.

    The rule of the reference code of MobileNet V2 and V3; V4 keeps it.

    >>> make_divisible(16 * 0.75), make_divisible(24 * 0.75), make_divisible(3)
    (16, 24, 8)
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def truncate(channels):
    """Drop the fraction, as MobileNet V1 does, but leave at least one channel."""
    return max(1, int(channels))


ROUNDING = {"divisible": make_divisible, "truncate": truncate}

# How the filters of a convolution row react to the width multiplier.
SCALING = (
    "scale",  # rounded product
    "grow",  # as "scale" above 1, unchanged below
    "fixed",  # never changed
    "follow",  # keeps the table's ratio to the row's own input, as expanded widths do
)


def scale_filters(filters, width, scaling, rounding, *, base_in=None, actual_in=None):
    """Return the filters of one row at `width`; `base_in` and `actual_in` are its input channels before and after."""
    if scaling == "fixed" or (scaling == "grow" and width <= 1):
        return filters
    if scaling == "follow" and base_in:
        return rounding(actual_in * filters / base_in)
    return rounding(filters * width)


def channels_per_group(channels, most=8):
    """Return the channels that share a group norm's statistics: the largest divisor of `channels` up to `most`."""
    return next(size for size in range(most, 0, -1) if channels % size == 0)


def lcm_divisor(heads):
    """Return what a width must be divisible by so that groups of 8 channels and `heads` heads both come out even."""
    return math.lcm(8, heads)
