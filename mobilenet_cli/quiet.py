"""Hide the frameworks' log messages while a command runs, and show them if the command fails in a framework.

TensorFlow and others write to the file descriptor of standard error from C++, even before their log level can be set,
and these messages can matter if something breaks. So standard error is redirected to a child process that keeps the
last lines. The child process prints them on request, or when this process dies.
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
_BELOW_ALL_LEVELS = -1  # a log level that no handler prints
_BUFFER_PROGRAM = f"""if True:
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
_EXPECTED = (MobileNetError, OSError, typer.Exit, typer.Abort)  # all other exceptions end with a traceback
_active_captures = []


def quiet(command):
    """Return a command that hides the log messages of the frameworks.

    The messages are shown if the command fails in a framework. They are never hidden if TF_CPP_MIN_LOG_LEVEL is 0 or 1,
    because then the user wants to see them.
    """

    @functools.wraps(command)
    def run(*args, **kwargs):
        with _captured_stderr():
            try:
                return command(*args, **kwargs)
            except Exception as error:
                _close(show=not isinstance(error, _EXPECTED) or _is_framework_error(error))
                raise

    return run


def release() -> None:
    """Stop hiding messages, for example before starting processes that hide their own messages."""
    _close(show=False)


@contextlib.contextmanager
def _captured_stderr():
    is_verbose = os.environ.get("TF_CPP_MIN_LOG_LEVEL") in ("0", "1")
    if not is_verbose and not _active_captures and sys.stderr is not None:  # `stderr` is None without a console.
        with contextlib.suppress(OSError):  # Standard error is closed.
            _active_captures.append(_StderrCapture())
    try:
        yield
    finally:
        _close(show=False)


def _close(show):
    if _active_captures:
        _active_captures.pop().close(show)


class _StderrCapture:
    """Redirection of standard error to a child process. Python's own `sys.stderr` still writes to the terminal."""

    def __init__(self):
        sys.stderr.flush()
        self._terminal = os.dup(2)
        command = [sys.executable, "-I", "-S", "-c", _BUFFER_PROGRAM]
        try:
            self._buffer_process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self._terminal)
        except OSError:
            os.close(self._terminal)
            raise
        pipe: Any = self._buffer_process.stdin
        os.dup2(pipe.fileno(), 2)
        pipe.close()
        self._stderr, self._factory, self._showwarning = sys.stderr, logging.getLogRecordFactory(), warnings.showwarning
        if _descriptor(sys.stderr) == 2:
            options = {"buffering": 1, "encoding": sys.stderr.encoding, "errors": sys.stderr.errors}
            sys.stderr = open(os.dup(self._terminal), "w", **options)
        logging.setLogRecordFactory(self._record)
        warnings.showwarning = self._warn

    def close(self, show):
        """Restore standard error, logging and warnings. If `show`, print the captured lines first."""
        logging.setLogRecordFactory(self._factory)
        warnings.showwarning = self._showwarning
        if sys.stderr is not self._stderr:
            sys.stderr.close()
            sys.stderr = self._stderr
        if show:
            _write(_SHOW)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._buffer_process.wait(timeout=5)
        self._buffer_process.kill()  # Kill it before its input ends, because that makes it print.
        self._buffer_process.wait()
        os.dup2(self._terminal, 2)
        os.close(self._terminal)

    def _record(self, name, *args, **kwargs):
        """Create a log record that is captured and that no handler prints."""
        record = self._factory(name, *args, **kwargs)
        try:
            text = record.getMessage()
        except Exception:  # The arguments of the log call don't fit its message.
            text = str(record.msg)
        _write(f"{record.levelname}:{name}: {text}\n")
        record.levelno = _BELOW_ALL_LEVELS
        return record

    def _warn(self, message, category, filename, lineno, file=None, line=None):
        if issubclass(category, MobileNetWarning):
            self._showwarning(message, category, filename, lineno, file, line)
        else:
            _write(warnings.formatwarning(message, category, filename, lineno, line))


def _write(text):
    with contextlib.suppress(OSError):  # The child process was killed.
        os.write(2, text.encode("utf-8", "backslashreplace"))


def _descriptor(stream):
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):  # The stream has no file, as in a test or a notebook.
        return None


def _is_framework_error(error):
    """Return whether an error or its cause was raised in a framework."""
    return any(cause is not None and _FRAMEWORKS & set(_origins(cause)) for cause in (error, error.__cause__))


def _origins(error):
    """Return the top-level modules of an error's class and of the code that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return {name.partition(".")[0] for name in (raised_in, type(error).__module__)} - {"builtins"}
