"""What frameworks log: held back while a command runs, and shown where it fails for a framework's reason.

TensorFlow and others write to the file descriptor of standard error from C++, before any setting of theirs can be made,
and as much may matter when something breaks. So standard error goes to a process that keeps the last lines. It prints
them when it is told to, or when this process dies.
"""

import contextlib
import functools
import logging
import os
import subprocess
import sys
import warnings
from typing import Any

import typer

from mobilenet_common.errors import MobileNetError, MobileNetWarning

_FRAMEWORKS = {"ai_edge_litert", "ai_edge_quantizer", "grain", "jax", "jaxlib", "keras", "nncf", "onnx", "onnxruntime"}
_FRAMEWORKS |= {"onnxscript", "openvino", "orbax", "tensorflow", "torch"}
_SHOW = "\0show\n"
_BELOW_ALL = -1  # a level that no handler takes
_HOLDER = f"""if True:
    import collections, signal, sys
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    lines = collections.deque(maxlen=1000)
    for line in sys.stdin.buffer:
        if line == {_SHOW.encode()!r}:
            break
        lines.append(line)
    if lines:
        sys.stdout.buffer.write(b"Messages from the frameworks:\\n")
        sys.stdout.buffer.writelines(lines)
"""
_EXPECTED = (MobileNetError, OSError, typer.Exit, typer.Abort)  # others end in a traceback
_open = []


def quiet(command):
    """Return a command during which only its own lines reach the terminal.

    What frameworks log is shown where the command fails in one of them. A user who sets TF_CPP_MIN_LOG_LEVEL to 0 or 1
    wants to see it, and does.
    """

    @functools.wraps(command)
    def run(*args, **kwargs):
        with _held():
            try:
                return command(*args, **kwargs)
            except Exception as error:
                _close(show=not isinstance(error, _EXPECTED) or _is_a_frameworks(error))
                raise

    return run


def release() -> None:
    """Let everything through again, as for processes that hold back their own lines."""
    _close(show=False)


@contextlib.contextmanager
def _held():
    wanted = os.environ.get("TF_CPP_MIN_LOG_LEVEL") in ("0", "1")
    if not wanted and not _open and sys.stderr is not None:  # as in a program without a console
        with contextlib.suppress(OSError):  # standard error is closed
            _open.append(_Hold())
    try:
        yield
    finally:
        _close(show=False)


def _close(show):
    if _open:
        _open.pop().close(show)


class _Hold:
    """Standard error while it is held back; Python's own `sys.stderr` goes on to the terminal."""

    def __init__(self):
        sys.stderr.flush()
        self._terminal = os.dup(2)
        command = [sys.executable, "-I", "-S", "-c", _HOLDER]
        try:
            self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self._terminal)
        except OSError:
            os.close(self._terminal)
            raise
        pipe: Any = self._holder.stdin
        os.dup2(pipe.fileno(), 2)
        pipe.close()
        self._stderr, self._factory, self._showwarning = sys.stderr, logging.getLogRecordFactory(), warnings.showwarning
        if _descriptor(sys.stderr) == 2:
            options = {"buffering": 1, "encoding": sys.stderr.encoding, "errors": sys.stderr.errors}
            sys.stderr = open(os.dup(self._terminal), "w", **options)
        logging.setLogRecordFactory(self._record)
        warnings.showwarning = self._warn

    def close(self, show):
        """Put everything back, and print the lines that were held if asked to."""
        logging.setLogRecordFactory(self._factory)
        warnings.showwarning = self._showwarning
        if sys.stderr is not self._stderr:
            sys.stderr.close()
            sys.stderr = self._stderr
        if show:
            _write(_SHOW)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._holder.wait(timeout=5)
        self._holder.kill()  # before its input ends, which makes it print
        self._holder.wait()
        os.dup2(self._terminal, 2)
        os.close(self._terminal)

    def _record(self, name, *args, **kwargs):
        """Make a log record that is held, and that no handler prints."""
        record = self._factory(name, *args, **kwargs)
        try:
            text = record.getMessage()
        except Exception:  # a mistake in somebody's call
            text = str(record.msg)
        _write(f"{record.levelname}:{name}: {text}\n")
        record.levelno = _BELOW_ALL
        return record

    def _warn(self, message, category, filename, lineno, file=None, line=None):
        if issubclass(category, MobileNetWarning):
            self._showwarning(message, category, filename, lineno, file, line)
        else:
            _write(warnings.formatwarning(message, category, filename, lineno, line))


def _write(text):
    with contextlib.suppress(OSError):  # the holder was killed
        os.write(2, text.encode("utf-8", "backslashreplace"))


def _descriptor(stream):
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):  # one without a file, as in a test or a notebook
        return None


def _is_a_frameworks(error):
    """Return whether an error, or the one that caused it, was raised in a framework."""
    return any(cause is not None and _FRAMEWORKS & set(_origins(cause)) for cause in (error, error.__cause__))


def _origins(error):
    """Return the top-level modules of an error's class and of the code that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return {name.partition(".")[0] for name in (raised_in, type(error).__module__)} - {"builtins"}
