"""Numbers of channels: how a width multiplier changes and rounds them."""

import math


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round `channels` to the nearest multiple of `divisor`, but not below 90% of `channels` nor below `divisor`.

    This is the rule of the reference code of MobileNet V2, V3 and V4.

    >>> make_divisible(16 * 0.75), make_divisible(24 * 0.75), make_divisible(3)
    (16, 24, 8)
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def truncate(channels):
    """Round `channels` down, as MobileNet V1 does, but not below 1."""
    return max(1, int(channels))


ROUNDING = {"divisible": make_divisible, "truncate": truncate}

# How the width multiplier changes the filters of a row.
SCALING = (
    "scale",  # multiply and round
    "grow",  # like "scale" for multipliers above 1, unchanged for others
    "fixed",  # never change
    "follow",  # keep the table's ratio of filters to input channels, like expanded widths
)


def scale_filters(filters, width, scaling, rounding, *, base_in=None, actual_in=None):
    """Return the filters of one row at a given width.

    Args:
        filters: Filters of the row at width 1.
        width: Width multiplier.
        scaling: One of `SCALING`.
        rounding: Function that rounds a number of channels.
        base_in: Input channels of the row at width 1; needed for `"follow"`.
        actual_in: Input channels of the row at `width`; needed for `"follow"`.
    """
    if scaling == "fixed" or (scaling == "grow" and width <= 1):
        return filters
    if scaling == "follow" and base_in:
        return rounding(actual_in * filters / base_in)
    return rounding(filters * width)


def channels_per_group(channels, most=8):
    """Return the size of the groups of a group norm: the largest divisor of `channels` up to `most`."""
    return next(size for size in range(most, 0, -1) if channels % size == 0)


def lcm_divisor(heads):
    """Return the divisor of a width that fits both groups of 8 channels and `heads` heads."""
    return math.lcm(8, heads)
