"""Axes and shapes of a batch of images in both data formats."""

import functools
from typing import Any

import keras
from keras import ops


def spatial_axes(data_format):
    """Return the indices of the axes of rows and columns."""
    return (1, 2) if data_format == "channels_last" else (2, 3)


def channel_axis(data_format):
    """Return the index of the channel axis."""
    return -1 if data_format == "channels_last" else 1


def along_channels(vector, data_format):
    """Return a per-channel `vector` in a shape that broadcasts over a batch of images."""
    return vector if data_format == "channels_last" else ops.reshape(vector, (-1, 1, 1))


def split_shape(shape: Any, data_format: str) -> Any:
    """Return `(batch, height, width, channels)` of a 4-D `shape`."""
    if data_format == "channels_last":
        return tuple(shape)
    return shape[0], shape[2], shape[3], shape[1]


def join_shape(batch, height, width, channels, data_format):
    """Return a 4-D shape in `data_format`; the inverse of `split_shape`."""
    if data_format == "channels_last":
        return batch, height, width, channels
    return batch, channels, height, width


def to_channels_last(x):
    """Return a channels-first batch in channels-last format."""
    return ops.transpose(x, (0, 2, 3, 1))


def to_channels_first(x):
    """Return a channels-last batch in channels-first format."""
    return ops.transpose(x, (0, 3, 1, 2))


@functools.cache
def lacks_channels_first() -> bool:
    """Return whether the backend has no channels-first convolutions, which is true for TensorFlow without a GPU."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")
