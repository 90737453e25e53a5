"""Make standard output and error able to print any name, and allow their reader to close them early."""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator

from mobilenet_common.errors import printable

_CLOSED = 1  # exit status if the reader has closed the output, as in Python's own tools


@contextlib.contextmanager
def configured_streams() -> Iterator[None]:
    """Make standard output and error escape characters that they can't encode, and exit quietly if they are closed."""
    codecs.register_error("mobilenet-zoo", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # It is None if it was closed from the start.
            stream.reconfigure(errors="mobilenet-zoo")
    try:
        try:
            yield
        finally:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
    except BrokenPipeError:
        # Discard what is left in the buffers, because Python would otherwise report it at exit.
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(_CLOSED)


def _escaped(error):
    text = printable(error.object[error.start : error.end])
    return text.encode("ascii", "backslashreplace").decode(), error.end
