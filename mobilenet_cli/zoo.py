"""What the commands use of `mobilenet_zoo`, which is imported when a command first needs it.

With it come Keras and a backend, which take seconds, and which somebody who only runs exported files needn't have.
"""

import functools
import importlib
import importlib.util
import os
import sys

from mobilenet_common.errors import install_hint

BACKENDS = ("tensorflow", "jax", "torch")


def choose_backend() -> None:
    """Set KERAS_BACKEND to an installed one if nobody has chosen, and end the command where nothing is installed.

    Keras's own choice, without settings, is TensorFlow, and fails where that isn't installed.
    """
    if not _is_installed("keras"):
        sys.exit("mobilenet-zoo needs Keras for this: pip install keras.")
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen in BACKENDS and not _is_installed(chosen):
        sys.exit(f"KERAS_BACKEND={chosen} is not installed: {install_hint(chosen)}.")
    if chosen is not None and chosen not in BACKENDS:
        sys.exit(f"KERAS_BACKEND={chosen} is not supported: set it to {', '.join(BACKENDS)}.")
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    if chosen is not None or os.path.exists(os.path.join(home, "keras.json")):
        return
    installed = [name for name in BACKENDS if _is_installed(name)]
    if not installed:
        sys.exit(f"mobilenet-zoo needs a backend: {install_hint('torch')}, or [jax], or [tensorflow].")
    os.environ["KERAS_BACKEND"] = installed[0]


def _is_installed(name):
    return importlib.util.find_spec(name) is not None


def prepare_to_repeat() -> None:
    """Let TensorFlow, before it starts, run operations in one order, so that a run can be repeated to the last bit."""
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


def begin_with_huge_pages() -> None:
    """Start this program anew, with the same process id, where glibc does not ask for huge pages yet.

    A step of training takes hundreds of megabytes and gives them back, which in pages of 4 kB is a good part of its
    time (docs/benchmarks.md). glibc reads the variable when a program starts. One that is set already, also to
    nothing, stays as it is.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, sys.orig_argv)


@functools.cache
def zoo():
    """Return the package `mobilenet_zoo`, under a backend that is installed."""
    choose_backend()
    return importlib.import_module("mobilenet_zoo")
