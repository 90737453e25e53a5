"""Standard output and error as the commands need them: they show every name, and their reader may leave early."""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator

from mobilenet_common.errors import printable

_CLOSED = 1  # exit status where the reader of the output has gone, as Python's own tools have it


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Let standard output and error show what they have no letters for as escapes, and end quietly once closed."""
    codecs.register_error("mobilenet-zoo", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed from the start
            stream.reconfigure(errors="mobilenet-zoo")
    try:
        try:
            yield
        finally:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
    except BrokenPipeError:
        # What is still in the buffers goes nowhere, or Python would report it when it ends.
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(_CLOSED)


def _escaped(error):
    text = printable(error.object[error.start : error.end])
    return text.encode("ascii", "backslashreplace").decode(), error.end
