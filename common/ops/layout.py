"""Where the axes of a batch of images are, under either data format."""

import functools
from typing import Any

import keras
from keras import ops


def spatial_axes(data_format):
    """Return the axes of rows and columns."""
    return (1, 2) if data_format == "channels_last" else (2, 3)


def channel_axis(data_format):
    """Return the axis of the channels."""
    return -1 if data_format == "channels_last" else 1


def along_channels(vector, data_format):
    """Return a per-channel `vector` shaped so that it broadcasts over a batch of images."""
    return vector if data_format == "channels_last" else ops.reshape(vector, (-1, 1, 1))


def split_shape(shape: Any, data_format: str) -> Any:
    """Return `(batch, height, width, channels)` of a 4-D `shape`."""
    if data_format == "channels_last":
        return tuple(shape)
    return shape[0], shape[2], shape[3], shape[1]


def join_shape(batch, height, width, channels, data_format):
    """Return the 4-D shape that `split_shape` takes apart."""
    if data_format == "channels_last":
        return batch, height, width, channels
    return batch, channels, height, width


def to_channels_last(x):
    """Return a channels-first batch, channels last."""
    return ops.transpose(x, (0, 2, 3, 1))


def to_channels_first(x):
    """Return a channels-last batch, channels first."""
    return ops.transpose(x, (0, 3, 1, 2))


@functools.cache
def lacks_channels_first() -> bool:
    """Return whether the backend's convolutions refuse channels-first images here, as TensorFlow's do without a GPU."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")
