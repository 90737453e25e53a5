"""The errors that all readers of files share, and the size from which on a tensor is refused."""

from mobilenet_common.errors import CheckpointError

MOST_BYTES = 1 << 30  # of one tensor: seven times the largest MobileNet, all of it


def damaged(path, kind, error):
    """Return the error for a file that can't be read, with the first line of what its reader said."""
    detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{path} can't be read: it is truncated, damaged or not a {kind} file ({detail}).")


def too_large(path, name, shape):
    """Return the error for a tensor of more than `MOST_BYTES`."""
    return CheckpointError(f"{path} was not read: its tensor {name} of shape {shape} is too large for a MobileNet.")
