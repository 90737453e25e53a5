"""Errors for rejected files, used by all readers, and the largest allowed size of a tensor."""

from mobilenet_common.errors import CheckpointError

MOST_BYTES = 1 << 30  # Limit for one tensor: seven times the size of the largest MobileNet's weights.


def damaged(path, kind, error):
    """Return the error for a file that can't be read, with the first line of the reader's error message."""
    detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{path} can't be read: it is truncated, damaged or not a {kind} file ({detail}).")


def too_large(path, name, shape):
    """Return the error for a tensor that is larger than `MOST_BYTES`."""
    return CheckpointError(f"{path} was not read: its tensor {name} of shape {shape} is too large for a MobileNet.")
